"""Wiki markup to plain text: links unwrapped, templates resolved or dropped, nothing else changed.

Templates nest, so they are found by a balanced scan and not by a regular expression. Markup that never
closes is left as it is; callers drop text in which ``has_markup`` still finds some.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

_BRACES = re.compile(r"(\{\{|\}\})")
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_EXTERNAL_LINK = re.compile(r"\[(?:https?:)?//[^\s\]]+\s*([^\]]*)\]")
_REFERENCE = re.compile(r"<ref\b[^<>]*/>|<ref\b.*?</ref\s*>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_EMPHASIS = re.compile(r"'{2,}")
# stress accents, soft hyphens, zero-width and direction marks
_INVISIBLE = dict.fromkeys([0x0300, 0x0301, 0xAD, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0xFEFF])
_SPACE_BEFORE_PUNCTUATION = re.compile(r" ([,.;:!?…»)])")
_MARKUP = re.compile(r"\{\{|\}\}|\[\[|\]\]|<[a-zA-Z/]|\||^[#*=]")


def replace_templates(text: str, resolve: Callable[[str, list[str]], str]) -> str:
    """Replace every ``{{name|a|b}}``, innermost first, by ``resolve(name, [a, b])``."""
    stack: list[list[str]] = [[]]
    for piece in _BRACES.split(text):
        if piece == "{{":
            stack.append([])
        elif piece == "}}" and len(stack) > 1:
            name, *arguments = split_arguments("".join(stack.pop()))
            stack[-1].append(resolve(name.strip(), arguments))
        else:
            stack[-1].append(piece)
    while len(stack) > 1:
        unclosed = "".join(stack.pop())
        stack[-1].append("{{" + unclosed)
    return "".join(stack[0])


def split_arguments(body: str) -> list[str]:
    """Split a template's body at ``|``, but not inside ``[[a|b]]``."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(r"\[\[|\]\]|\|", body):
        if match.group() == "[[":
            depth += 1
        elif match.group() == "]]":
            depth = max(0, depth - 1)
        elif depth == 0:
            parts.append(body[start : match.start()])
            start = match.end()
    return [*parts, body[start:]]


def strip_markup(text: str) -> str:
    """Plain one-line text of wiki markup whose templates are already resolved."""
    if "<" in text:
        text = _TAG.sub("", _REFERENCE.sub("", text))
    if "[" in text:
        text = _EXTERNAL_LINK.sub(r"\1", _LINK.sub(r"\1", text))
    if "''" in text:
        text = _EMPHASIS.sub("", text)
    text = " ".join(html.unescape(text).translate(_INVISIBLE).split())
    return _SPACE_BEFORE_PUNCTUATION.sub(r"\1", text)


def has_markup(text: str) -> bool:
    """Whether something is left that no reader should see."""
    return _MARKUP.search(text) is not None
