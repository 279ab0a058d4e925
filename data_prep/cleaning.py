"""``data-prep clean``: rules that repair a document or refuse it, each counted, each with samples.

A rule takes the text and returns the new text, or None to refuse the document. Rules run in the order of
``RULES``; ``contacts`` runs on request only, all others unless switched off.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_prep.corpus_folder import CorpusWriter, read_corpus, write_summary
from data_prep.documents import Document
from data_prep.errors import DataError
from data_prep.folders import finished_folder

Rule = Callable[[str], str | None]
_SAMPLES = 10
_SAMPLE_LENGTH = 300

_INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_ODD_SPACES = re.compile(r"[^\S\n ][^\S\n]*| [^\S\n]+")  # all but one plain space
_BLANK_LINES = re.compile(r"\n{3,}")
_RUSSIAN = frozenset("абвгдеёжзийклмнопрстуфхцчшщъыьэюяАБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
# letters of Ukrainian, Belarusian, Serbian, Kazakh … that Russian does not have
_OTHER_CYRILLIC = frozenset("іїєґўјљњћђџқңғүұһөәӣӯІЇЄҐЎЈЉЊЋЂЏҚҢҒҮҰҺӨӘӢӮ")
_FUNCTION_WORDS = frozenset(
    ["и", "в", "не", "на", "что", "с", "по", "а", "как", "это", "но", "к", "из", "у", "за", "от"]
)
_LONGEST_FUNCTION_WORD = max(map(len, _FUNCTION_WORDS))
_BOILERPLATE = re.compile(
    r"(?:все права защищены|cookie|читать далее|подробнее\s*$|поделиться|наверх\s*$|комментарии\s*\(\d+\)"
    r"|подпис(?:ывайтесь|аться) на|перейти к содержанию|версия для печати|copyright|©"
    r"|войти\s*\|?\s*регистрация"
    r"|включите javascript|полная версия сайта|пользовательское соглашение)",
    re.IGNORECASE,
)
_BOILERPLATE_LENGTH = 150
# 64 characters (RFC 5321): without a limit, a long row of dots would take the square of its length
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+")
_PHONE = re.compile(r"(?<![\d+])(?:\+7|8|7)[\s(-]*\d{3}[\s)-]*\d{3}[\s-]?\d{2}[\s-]?\d{2}(?!\d)")


def normalize(text: str) -> str:
    """Unicode NFC, one kind of line end and of space."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    lines = (line.strip() for line in _ODD_SPACES.sub(" ", text).split("\n"))
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def remove_control_characters(text: str) -> str:
    return _INVISIBLE.sub("", text)


def remove_boilerplate(text: str) -> str | None:
    """Short lines that belong to a web page and not to its text."""
    lines = text.split("\n")
    kept = [line for line in lines if len(line) > _BOILERPLATE_LENGTH or not _BOILERPLATE.search(line)]
    return "\n".join(kept).strip() or None


def require_russian(text: str) -> str | None:
    """Most letters Cyrillic, hardly any that Russian lacks, and in longer texts its commonest words."""
    characters = _characters(text)
    letters = _letters(characters)
    if not letters or _of(characters, _RUSSIAN) < 0.6 * letters:
        return None
    if _of(characters, _OTHER_CYRILLIC) > 0.01 * letters:
        return None
    words = _words(text)
    common = sum(word.lower() in _FUNCTION_WORDS for word in words if len(word) <= _LONGEST_FUNCTION_WORD)
    return text if len(words) < 50 or common >= 0.02 * len(words) else None


def require_quality(text: str) -> str | None:
    """Enough words of ordinary length, mostly letters, not the same line over and over."""
    words = _words(text)
    if len(words) < 5 or not 2.5 <= sum(map(len, words)) / len(words) <= 12:
        return None
    characters = _characters(text)
    visible = len(text) - sum(count for character, count in characters.items() if character.isspace())
    if _letters(characters) < 0.5 * visible:
        return None
    lines = [line for line in text.split("\n") if line]
    return text if len(lines) < 10 or len(set(lines)) >= 0.5 * len(lines) else None


def mask_contacts(text: str) -> str:
    """E-mail addresses and Russian phone numbers."""
    masked = _EMAIL.sub("[почта]", text) if "@" in text else text  # the pattern tries every word
    return _PHONE.sub("[телефон]", masked)


@lru_cache(maxsize=1)  # two rules ask the same of the same text
def _characters(text: str) -> Counter[str]:
    """Counted in C; asking about distinct ones is many times faster than patterns."""
    return Counter(text)


@lru_cache(maxsize=1)
def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _letters(characters: Counter[str]) -> int:
    return sum(count for character, count in characters.items() if character.isalpha())


def _of(characters: Counter[str], wanted: frozenset[str]) -> int:
    return sum(count for character, count in characters.items() if character in wanted)


RULES: dict[str, Rule] = {
    "unicode": normalize,
    "control": remove_control_characters,
    "boilerplate": remove_boilerplate,
    "language": require_russian,
    "quality": require_quality,
    "contacts": mask_contacts,
}
ON_REQUEST = frozenset({"contacts"})


@dataclass
class RuleCount:
    """What one rule did."""

    removed: int = 0
    changed: int = 0
    characters: int = 0
    samples: list[dict[str, str]] = field(default_factory=list)

    def note(self, document: Document, before: str, after: str | None) -> None:
        self.removed += after is None
        self.changed += after is not None
        self.characters += len(before) - len(after or "")
        if len(self.samples) < _SAMPLES and (after is None or len(before) != len(after)):
            self.samples.append(
                {"id": document.id, "source": document.source, "text": _difference(before, after)}
            )


class Cleaner:
    """Apply the rules to documents and keep the counts.

    >>> cleaner = Cleaner(skip={"quality"}, request={"contacts"})
    >>> cleaner.clean(document)      # a document, or None
    """

    def __init__(self, skip: Collection[str] = (), request: Collection[str] = ()) -> None:
        if unknown := sorted({*skip, *request} - set(RULES)):
            raise DataError(f"no cleaning rule {', '.join(unknown)}; there are {', '.join(RULES)}")
        active = [name for name in RULES if name not in skip and (name not in ON_REQUEST or name in request)]
        self.counts = {name: RuleCount() for name in active}

    def clean(self, document: Document) -> Document | None:
        text = document.text
        for name, count in self.counts.items():
            after = RULES[name](text)
            if after != text:
                count.note(document, text, after)
            if not after:
                return None
            text = after
        return Document(text, document.source, document.id)


def clean_corpus(
    input_dir: str | Path,
    output_dir: str | Path,
    *,
    skip: Collection[str] = (),
    request: Collection[str] = (),
) -> dict[str, Any]:
    """Clean a corpus folder into another; return the summary with every rule's count and samples."""
    cleaner, read = Cleaner(skip, request), 0
    with finished_folder(Path(output_dir)) as folder, CorpusWriter(folder) as writer:
        for read, document in enumerate(read_corpus(input_dir), 1):  # noqa: B007
            cleaned = cleaner.clean(document)
            if cleaned is not None:
                writer.write(cleaned)
        if not writer.documents:
            raise DataError(f"no document of {input_dir} passed the rules: look at them with --skip")
        rules = {name: vars(count) for name, count in cleaner.counts.items()}
        return write_summary(folder, "clean", read=read, documents=writer.documents, rules=rules)


def _difference(before: str, after: str | None) -> str:
    """The refused text, or what lies around the first change."""
    if after is None:
        return before[:_SAMPLE_LENGTH]
    pairs = zip(before, after, strict=False)
    start = next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(before), len(after)))
    return before[max(0, start - 40) : start + _SAMPLE_LENGTH]
