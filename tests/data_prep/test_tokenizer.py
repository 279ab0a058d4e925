"""The tokenizer: every text, every transformers, the same everywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from data_prep.documents import Document
from data_prep.errors import TokenizerError
from data_prep.prepare import PreparedCorpus
from data_prep.tokenize_documents import tokenize_documents
from data_prep.tokenizer import load_tokenizer, save_tokenizer
from data_prep.train_tokenizer import train_tokenizer

ALPHABET = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"


def test_special_ids_and_size(tokenizer) -> None:
    names = [
        tokenizer.pad_token,
        tokenizer.unk_token,
        tokenizer.cls_token,
        tokenizer.sep_token,
        tokenizer.mask_token,
    ]
    assert names == ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.convert_tokens_to_ids(names) == [0, 1, 2, 3, 4]
    assert len(tokenizer) % 64 == 0


def test_every_russian_letter_is_in_the_vocabulary(tokenizer) -> None:
    assert set(ALPHABET + ALPHABET.upper()) <= set(tokenizer.get_vocab())


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
@settings(max_examples=200)
def test_no_text_is_unknown(tokenizer, text: str) -> None:
    assert tokenizer.unk_token_id not in tokenizer(text.replace("<unk>", ""))["input_ids"]


def test_text_comes_back(tokenizer) -> None:
    text = "Мама видит реку, «а» 😀 — нет? Ёж: 12 км/ч."
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_words_open_with_the_mark(tokenizer) -> None:
    tokens = tokenizer.tokenize("старик ищет лодку, у дома.")
    assert sum(token.startswith("▁") for token in tokens) == 5
    assert not any("," in token and len(token) > 1 for token in tokens)


def test_template_and_mask(tokenizer) -> None:
    single = tokenizer("мама [MASK] реку.")
    tokens = single.tokens()
    assert (tokens[0], tokens[-1], tokens.count("[MASK]") + tokens.count(" [MASK]")) == ("[CLS]", "[SEP]", 1)
    assert single["input_ids"].count(tokenizer.mask_token_id) == 1
    pair = tokenizer("мама", "река")
    assert pair["token_type_ids"] == sorted(pair["token_type_ids"])
    assert pair["input_ids"].count(tokenizer.sep_token_id) == 2


def test_special_tokens_spelled_in_text_stay_text(tokenizer) -> None:
    document = Document("Пишут [MASK] и <pad> в тексте.", "a", "1")
    (tokenized,) = tokenize_documents([document], tokenizer)
    assert not set(tokenized.input_ids.tolist()) & set(tokenizer.all_special_ids)


def test_sentences_joined_equal_the_whole_text(tokenizer) -> None:
    text = "Мама видит реку. Старик ждёт письмо! А кто зовёт? Никто…"
    (tokenized,) = tokenize_documents([Document(text, "a", "1")], tokenizer)
    assert tokenized.input_ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(tokenized.sentence_ends) == 4


def test_loads_without_this_project(prepared: PreparedCorpus, tmp_path: Path) -> None:
    code = (
        "import sys; from transformers import AutoTokenizer\n"
        "t = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "assert 'data_prep' not in sys.modules\n"
        "print(t('мама видит [MASK].')['input_ids'])"
    )
    command = [sys.executable, "-I", "-c", code, str(prepared.tokenizer_dir)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    expected = AutoTokenizer.from_pretrained(prepared.tokenizer_dir)("мама видит [MASK].")["input_ids"]
    assert result.stdout.strip() == str(expected)


@pytest.fixture(scope="module")
def bpe(documents):
    return train_tokenizer((document.text for document in documents), 1000, "bpe")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
@settings(max_examples=100)
def test_bpe_knows_every_text(bpe, text: str) -> None:
    assert bpe.unk_token_id not in bpe(text.replace("<unk>", ""))["input_ids"]


def test_bpe_has_the_same_words_and_alphabet(bpe, tokenizer, documents, tmp_path: Path) -> None:
    assert len(bpe) % 64 == 0
    assert set(ALPHABET + ALPHABET.upper()) <= set(bpe.get_vocab())
    assert bpe.convert_tokens_to_ids(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]) == [0, 1, 2, 3, 4]
    text = "Старик ищет лодку, у дома 😀."
    for one in (bpe, tokenizer):
        assert sum(token.startswith("▁") for token in one.tokenize(text)) == 6
    assert bpe.decode(bpe(text)["input_ids"], skip_special_tokens=True) == text
    (tokenized,) = tokenize_documents([Document("Пишут [MASK] и <0x41> в тексте.", "a", "1")], bpe)
    assert not set(tokenized.input_ids.tolist()) & {*bpe.all_special_ids, bpe.get_vocab()["<0x41>"]}
    again = train_tokenizer((document.text for document in documents), 1000, "bpe")
    assert again.backend_tokenizer.to_str() == bpe.backend_tokenizer.to_str()
    save_tokenizer(bpe, tmp_path)
    assert load_tokenizer(tmp_path).tokenize(text) == bpe.tokenize(text)


@pytest.mark.heavy
def test_fill_mask_pipeline(tokenizer) -> None:
    from transformers import BertConfig, BertForMaskedLM, pipeline

    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    fill = pipeline("fill-mask", model=BertForMaskedLM(config), tokenizer=tokenizer)
    assert len(fill("мама [MASK] реку.")) == 5


def test_saved_and_loaded_is_the_same(tokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path)
    assert load_tokenizer(tmp_path).get_vocab() == tokenizer.get_vocab()


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no text"):
        train_tokenizer([" ", ""], 512)
    with pytest.raises(TokenizerError, match="vocab_size 64"):
        train_tokenizer(["мама мыла раму"], 64)
    with pytest.raises(TokenizerError, match="no text"):
        train_tokenizer([" ", ""], 512, "bpe")
    with pytest.raises(TokenizerError, match="vocab_size 64"):
        train_tokenizer(["мама мыла раму"], 64, "bpe")
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match="cannot be read"):
        load_tokenizer(tmp_path)
