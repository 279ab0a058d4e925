"""Tiny random encoders with tokenizers of three kinds: our unigram, BERT's wordpiece, RoBERTa's byte-level BPE."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import (
    ByteLevelBPETokenizer,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from data_prep.tokenizer import save_tokenizer
from data_prep.train_tokenizer import train_tokenizer
from model import LeanAlbertConfig, LeanAlbertForPreTraining
from tests.finetune.layouts import sentence

LETTERS = "".join(chr(code) for code in range(ord("а"), ord("я") + 1)) + "ё"
TEXTS = [sentence(number) for number in range(40)] + [LETTERS, " ".join(LETTERS)]
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 66,
}


def save_lean_albert(folder: Path) -> Path:
    tokenizer = train_tokenizer(TEXTS, 448)
    torch.manual_seed(0)
    config = LeanAlbertConfig(vocab_size=len(tokenizer), embedding_size=16, **SMALL)
    LeanAlbertForPreTraining(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


def save_bert(folder: Path) -> Path:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig(vocab_size=len(fast), **SMALL)).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def save_roberta(folder: Path) -> Path:
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(TEXTS, vocab_size=400, special_tokens=special)
    folder.mkdir(parents=True)
    bpe.save_model(str(folder))
    # as the hub keeps it: vocab.json, merges.txt and the class of the tokenizer
    config = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 64, "add_prefix_space": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    settings = RobertaConfig(vocab_size=400, type_vocab_size=1, pad_token_id=1, **SMALL)
    RobertaForMaskedLM(settings).save_pretrained(folder)
    return folder


MAKERS = {"lean_albert": save_lean_albert, "bert": save_bert, "roberta": save_roberta}
