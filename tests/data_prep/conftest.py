"""A small Russian text, and what is made of it once per session."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from data_prep.documents import Document
from data_prep.masking import WholeWordMasker
from data_prep.prepare import PreparedCorpus, prepare_corpus

_SUBJECTS = [
    "мама",
    "собака",
    "учитель",
    "старик",
    "ворона",
    "мальчик",
    "девочка",
    "инженер",
    "художник",
    "крестьянин",
]
_VERBS = ["видит", "помнит", "ждёт", "рисует", "зовёт", "ищет", "встречает", "провожает", "слушает", "прячет"]
_OBJECTS = ["реку", "дорогу", "письмо", "книгу", "лодку", "гору", "песню", "лампу", "корзину", "площадь"]
_PLACES = ["у дома", "за рекой", "в большом городе", "на старой мельнице", "под мостом", "перед рассветом"]


def make_documents(count: int, source: str = "сказки", seed: int = 0) -> list[Document]:
    rng = random.Random(f"{seed} {source}")
    return [Document(_text(rng), source, f"{source}-{index}") for index in range(count)]


def _text(rng: random.Random) -> str:
    parts = (_SUBJECTS, _VERBS, _OBJECTS, _PLACES)
    sentences = [" ".join(map(rng.choice, parts)).capitalize() for _ in range(rng.randint(1, 6))]
    return ". ".join(sentences) + rng.choice([".", "!", "?", "…"])


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    return make_documents(600)


@pytest.fixture(scope="session")
def prepared(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> PreparedCorpus:
    return prepare_corpus(
        documents,
        tmp_path_factory.mktemp("corpus") / "prepared",
        vocab_size=512,
        sequence_length=32,
        heldout_fraction=0.1,
        heldout_rows=16,
        seed=0,
    )


@pytest.fixture(scope="session")
def tokenizer(prepared: PreparedCorpus) -> PreTrainedTokenizerFast:
    from data_prep.tokenizer import load_tokenizer

    return load_tokenizer(prepared.tokenizer_dir)


@pytest.fixture(scope="session")
def masker(tokenizer: PreTrainedTokenizerFast) -> WholeWordMasker:
    return WholeWordMasker(tokenizer)


@pytest.fixture
def corpus_dir() -> Path:
    """The real text beside the checkout; the test is skipped where it is absent."""
    import os

    root = Path(os.environ.get("ARTEL_DATA_DIR", Path(__file__).parents[3] / "shared" / "data"))
    if not (root / "corpus").is_dir():
        pytest.skip("no real text: set ARTEL_DATA_DIR to the folder that holds corpus/")
    return root / "corpus"
