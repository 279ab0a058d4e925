"""Sentence boundaries and ids: the quick ways give what the slow ones give."""

from __future__ import annotations

import numpy as np
import razdel
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep.sentences import split_sentences
from data_prep.tokenize_documents import DocumentTokenizer

_PIECES = (
    *".?!…;»”’)]}\"„'«“‘([:=-—–−‑№_§",
    *(" ", " ", " ", "  ", "\u00a0", "\t", "\n", " " * 12),
    *("т", "е", "Т", "А", "a", "I", "3", "²", "é", "ё", "Ё", "ї", "Ї", "\u0301"),
    *("др", "г", "ст", "им", "дж", "Дж", "руб", "кв", "км", "мн", "ч", "т.е.", "и т. д.", "н. э."),
    *(
        "слово",
        "Слово",
        "длинноеслово",
        "СЛОВО",
        "iPhone",
        "Direct3D",
        "Иванов",
        "12",
        "IV",
        "x2",
        "...",
        ":-)",
    ),
)
texts = st.lists(st.sampled_from(_PIECES), max_size=24).map("".join)


def _razdel(text: str) -> list[str]:
    return [
        sentence.text
        for paragraph in text.splitlines()
        for sentence in razdel.sentenize(paragraph)
        if sentence.text
    ]


@given(texts)
@settings(max_examples=300)
@example("В 1990 г. Иванов И. И. приехал. Зачем? «Не знаю.» — Да. Нет… Вот т. е. Так :-) Он ушёл.")
@example("Приложение Direct3D. Слово и т. п. Он. 1. Первое. Второе (в скобках.) Третье; Четвёртое.")
def test_sentences_are_those_of_razdel(text: str) -> None:
    assert split_sentences(text) == _razdel(text)


@given(st.lists(texts | st.sampled_from(["▁", "а▁б в", "[MASK] <pad>", "😀 слово", "<0x41>"]), max_size=6))
@settings(max_examples=40)
def test_ids_are_those_of_whole_sentences(tokenizer, given_texts: list[str]) -> None:
    tokenize = DocumentTokenizer(tokenizer)
    tokenize(["Мама видит реку."])  # the choice of the quick way is made on the first batch
    for text, document in zip(given_texts, tokenize(given_texts), strict=True):
        encoded = tokenizer.backend_tokenizer.encode_batch_fast(
            split_sentences(text), add_special_tokens=False
        )
        ids = [one.ids for one in encoded if one.ids]
        assert document.input_ids.tolist() == [number for one in ids for number in one]
        assert document.sentence_ends.tolist() == np.cumsum([len(one) for one in ids], dtype=int).tolist()
