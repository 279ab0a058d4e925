"""CoNLL files: a token and its tag on a line, an empty line between sentences.

The first column is the token, the last the tag; columns are separated by tabs or spaces. Lines that begin
with `-DOCSTART-` or `#` before a sentence are passed over. BIO, IOB (an I- may open) and BIOES are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune.errors import BadInput
from finetune.tags import Entity, tags_to_entities

_LIKE_BIO = {"S": "B", "U": "B", "E": "I", "L": "I", "M": "I"}
Sentence = tuple[list[str], list[str] | None]


def read_conll(path: Path) -> Iterator[Sentence]:
    """Tokens and tags (None in a file of one column) of every sentence; `BadInput` names a bad line."""
    lines: list[list[str]] = []
    columns = 0
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"ner: {path} is not UTF-8 text ({error.reason})") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("-DOCSTART-") or (not lines and line.startswith("# ")):
            if lines:
                yield _sentence(lines)
                lines = []
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        columns = columns or len(fields)
        if len(fields) != columns:
            raise BadInput(f"ner: {path}, line {number}: {len(fields)} columns, {columns} before")
        if columns > 1 and not _is_tag(fields[-1]):
            raise BadInput(
                f"ner: {path}, line {number}: {fields[-1]!r} is not a tag such as B-PER, I-PER or O"
            )
        lines.append(fields)
    if lines:
        yield _sentence(lines)


def sentence_entities(words: Sequence[tuple[int, int]], tags: Sequence[str]) -> list[Entity]:
    """Entities of a sentence's tags, BIOES brought to BIO first."""
    return tags_to_entities(words, [_LIKE_BIO.get(tag[0], tag[0]) + tag[1:] for tag in tags])


def join_words(words: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The words with spaces between them, and the characters each takes."""
    places, start = [], 0
    for word in words:
        places.append((start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), tuple(places)


def _sentence(lines: list[list[str]]) -> Sentence:
    tags = [fields[-1].strip() for fields in lines] if len(lines[0]) > 1 else None
    return [fields[0] for fields in lines], tags


def _is_tag(tag: str) -> bool:
    tag = tag.strip()
    return tag == "O" or (len(tag) > 2 and tag[1] == "-" and tag[0] in "BIESLUM")
