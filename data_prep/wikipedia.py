"""Wikipedia XML dumps: articles as paragraphs; templates, tables, files, headings and lists left out.

Pages are cut out of the dump line by line and parsed one at a time, so a page whose XML is broken is
reported and the next one is read.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from data_prep.compressed import read_lines
from data_prep.damage import DamageReport
from data_prep.documents import Document
from data_prep.wikitext import has_markup, replace_templates, strip_markup

_TABLE = re.compile(r"\{\|(?:(?!\{\|).)*?\|\}", re.DOTALL)
_BLOCK = re.compile(
    r"<(ref|gallery|math|source|syntaxhighlight|timeline|table|score|code|pre)\b"
    # in this order: a tag that closes itself would else reach to the end of the next one of its name
    r"(?:[^<>]*/>|[^<>]*>.*?</\1\s*>)|<!--.*?-->",
    re.DOTALL | re.IGNORECASE,
)
_MEDIA = re.compile(r"\[\[\s*:?(?:файл|file|изображение|image|категория|category)\s*:", re.IGNORECASE)
_NOT_A_PARAGRAPH = re.compile(r"^[\s]*[=*#:;|!{}<_]")
_TEXT_TEMPLATES = {
    "s",
    "nobr",
    "нп",
    "нп3",
    "нп4",
    "нп5",
    "не переведено",
    "lang-ru",
    "iw",
    "comment",
    "abbr",
}
_LETTERS = re.compile(r"[^\W\d_]")
_MIN_LETTERS = 20


def read_wikipedia(
    path: Path, source: str, damage: DamageReport, namespaces: frozenset[int] = frozenset({0})
) -> Iterator[Document]:
    """Articles of the given namespaces that have at least one paragraph; redirects are left out."""
    for number, page in _pages(path, damage):
        try:
            element = ElementTree.fromstring(page)
            namespace = int(element.findtext("ns") or 0)
        except (ElementTree.ParseError, ValueError) as error:
            damage.add(str(path), f"page at line {number}", error)
            continue
        if namespace not in namespaces or element.find("redirect") is not None:
            continue
        text = "\n".join(paragraphs(element.findtext("revision/text") or ""))
        if text:
            yield Document(text, source, element.findtext("id") or element.findtext("title") or str(number))


def paragraphs(wikitext: str) -> list[str]:
    """The running text of an article."""
    text = _BLOCK.sub("", wikitext)
    previous = None
    while previous != text:  # tables nest
        previous, text = text, _TABLE.sub("", text)
    text = _without_media(replace_templates(text, _resolve))
    plain = (strip_markup(line) for line in text.splitlines() if not _NOT_A_PARAGRAPH.match(line))
    return [line for line in plain if len(_LETTERS.findall(line)) >= _MIN_LETTERS and not has_markup(line)]


def _resolve(name: str, arguments: list[str]) -> str:
    """Text of the few templates that stand for words; all others vanish."""
    positional = [argument for argument in arguments if "=" not in argument]
    return positional[0] if name.lower() in _TEXT_TEMPLATES and positional else ""


def _without_media(text: str) -> str:
    """Drop ``[[Файл:…]]`` with the links nested in its caption."""
    parts, start = [], 0
    while match := _MEDIA.search(text, start):
        parts.append(text[start : match.start()])
        start = _end_of_link(text, match.start())
    return "".join([*parts, text[start:]])


def _end_of_link(text: str, start: int) -> int:
    depth = 0
    for match in re.finditer(r"\[\[|\]\]", text[start:]):
        depth += 1 if match.group() == "[[" else -1
        if depth == 0:
            return start + match.end()
    return len(text)


def _pages(path: Path, damage: DamageReport) -> Iterator[tuple[int, bytes]]:
    """Line number and bytes of every ``<page>…</page>``; one cut off by another's start is reported."""
    lines: list[bytes] = []
    start = 0
    for number, line in read_lines(path, damage):
        stripped = line.strip()
        if stripped == b"<page>":
            if lines:
                damage.add(str(path), f"page at line {start}", "the page does not end")
            lines, start = [line], number
        elif lines:
            lines.append(line)
            if stripped == b"</page>":
                yield start, b"".join(lines)
                lines = []
    if lines:
        damage.add(str(path), f"page at line {start}", "the page does not end")
