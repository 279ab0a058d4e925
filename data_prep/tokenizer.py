"""The run's tokenizer: Unigram or BPE pieces in which ``▁`` opens every word.

It is an ordinary ``tokenizer.json`` that needs nothing of this project. Every text can be encoded: the Russian
alphabet is always in the vocabulary, characters that are not fall back to bytes. Ids 0 to 4 are
``<pad> <unk> [CLS] [SEP] [MASK]``; the vocabulary is filled up to a multiple of 64 with pieces that never occur,
because matrix kernels like such widths. `train_tokenizer.py` makes one.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data_prep.errors import TokenizerError
from data_prep.vocabulary import WORD_START, check_special_tokens

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")


def load_tokenizer(directory: str | Path) -> PreTrainedTokenizerFast:
    """Read a saved tokenizer; ``TokenizerError`` names the directory when it cannot be used."""
    if not (Path(directory) / "tokenizer.json").is_file():
        raise TokenizerError(
            f"no tokenizer.json in {directory}: give the directory data-prep tokenizer wrote"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory))
    except Exception as error:  # tokenizers has no narrower one for a file it cannot parse
        raise TokenizerError(f"the tokenizer in {directory} cannot be read: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise TokenizerError(f"the tokenizer in {directory} is not a fast one: it needs a tokenizer.json")
    check_special_tokens(tokenizer, str(directory))
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, directory: str | Path) -> None:
    """Write a directory that ``AutoTokenizer`` of transformers 4 and 5 loads without this project.

    Raises ``OSError`` when it cannot be written.
    """
    try:
        tokenizer.save_pretrained(str(directory))
    except OSError:
        raise
    except Exception as error:  # tokenizers has no narrower one
        raise OSError(f"the tokenizer cannot be written to {directory}: {error}") from error
    path = Path(directory) / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # version 5's own name for it is unknown to 4
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def text_side() -> Tokenizer:
    """Normalizer and word splitting, the same in training and use; punctuation never joins a word's piece."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(left=False, right=True),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # "first": text after [MASK] opens a word only if a space says so
            pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="first"),
            pre_tokenizers.Split(Regex(rf"{WORD_START}?\p{{P}}"), "isolated"),
        ]
    )
    return tokenizer


def wrap_model(model: models.Model) -> PreTrainedTokenizerFast:
    """A model whose first pieces are the special tokens, with everything around it."""
    tokenizer = text_side()
    tokenizer.model = model
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement=WORD_START, prepend_scheme="first")]
    )
    special = [AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS[:-1]]
    # the space before [MASK] belongs to the word that is masked
    mask = AddedToken(MASK, special=True, normalized=False, lstrip=True)
    tokenizer.add_special_tokens([*special, mask])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, SPECIAL_TOKENS.index(CLS)), (SEP, SPECIAL_TOKENS.index(SEP))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=mask,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
