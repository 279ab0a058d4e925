"""data-prep clean: what each rule repairs and refuses, and that it counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep import cleaning
from data_prep.corpus_folder import read_corpus, write_corpus
from data_prep.documents import Document
from data_prep.errors import DataError

RUSSIAN = "Старик вышел к реке и долго смотрел на воду, а потом пошёл домой, потому что стало холодно."


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        ("unicode", "и\u0306 е\u0308\r\nа\u00a0б", "й ё\nа б"),
        ("control", "при\u00adвет\x00\u200b\ufeff", "привет"),
        ("boilerplate", "Новость дня.\nПодписывайтесь на наш канал\n© 2020", "Новость дня."),
        ("boilerplate", "Читать далее", None),
        ("language", RUSSIAN, RUSSIAN),
        ("language", "The old man went down to the river and looked at the water.", None),
        ("language", "Їхав козак на війну і співав пісню про її очі та їхній дім.", None),
        ("quality", RUSSIAN, RUSSIAN),
        ("quality", "Да.", None),
        ("quality", "12.03 | 45.67 | 1234 | 99.1 | а б в г д е", None),
        ("quality", "\n".join(["Купить недорого с доставкой сегодня"] * 20), None),
        ("contacts", "Пишите a.b@mail.ru, звоните +7 (495) 123-45-67.", "Пишите [почта], звоните [телефон]."),
        ("contacts", f"Глава {'.' * 300_000} 5, a@b.ru", f"Глава {'.' * 300_000} 5, [почта]"),
        ("contacts", "В 1941 году 89 000 человек.", "В 1941 году 89 000 человек."),
    ],
)
def test_rule(rule: str, before: str, after: str | None) -> None:
    assert cleaning.RULES[rule](before) == after


def test_counts_samples_and_switches(tmp_path: Path) -> None:
    documents = [
        Document(RUSSIAN, "a", "1"),
        Document("An English text that nobody asked for.", "a", "2"),
        Document(RUSSIAN + "\u00ad почта: x@y.ru", "a", "3"),
    ]
    (tmp_path / "in").mkdir()
    write_corpus(tmp_path / "in", documents)
    summary = cleaning.clean_corpus(tmp_path / "in", tmp_path / "out")
    assert [document.id for document in read_corpus(tmp_path / "out")] == ["1", "3"]
    assert (summary["read"], summary["documents"]) == (3, 2)
    assert summary["rules"]["language"]["removed"] == 1
    assert summary["rules"]["language"]["samples"][0]["id"] == "2"
    assert summary["rules"]["control"]["changed"] == 1
    assert "contacts" not in summary["rules"]
    summary = cleaning.clean_corpus(tmp_path / "in", tmp_path / "b", skip=["language"], request=["contacts"])
    assert summary["documents"] == 3
    assert list(read_corpus(tmp_path / "b"))[2].text.endswith("[почта]")


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no cleaning rule spelling"):
        cleaning.Cleaner(skip=["spelling"])
    with pytest.raises(DataError, match="not a corpus folder"):
        cleaning.clean_corpus(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
