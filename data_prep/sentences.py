"""Sentences as razdel finds them, many times faster.

razdel looks at every mark that may end a sentence and asks its rules whether to go on; each rule can only say
"go on". Nearly all marks are decided here, by one compiled pattern and a set of abbreviations: no space behind the
mark, a lower-case word behind it, or a plain end of a sentence. The others are given to razdel's own rules, and
whole paragraphs with smileys, which it reads as marks, to razdel itself. The boundaries are razdel's in every case.
"""

from __future__ import annotations

import re

import razdel
from razdel.segmenters.sentenize import SentSegmenter, SentSplit
from razdel.segmenters.sokr import INITIALS, PAIR_SOKRS, SOKRS

_WINDOW = 10  # characters on either side of a mark that razdel looks at
_BULLET = 20  # a longer sentence is no list item to razdel
_SMILEY = re.compile(r"[=:;]-?[)(]")
_UPPER, _LOWER = "A-ZА-ЯЁ", "a-zа-яё"
# begins with a set, which `re` finds quickest
_MARK = re.compile(
    rf"[.?!…;»”’)\]}}\"„'](?=\s)(?!\s(?:[‑–—−-]\s)?[{_LOWER}]+(?:[\W\d]|$))"
    r"(?:(?<=[.?!…;])|(?<!\w.))"  # a closing mark right after a word ends no sentence
    rf"(?P<plain>(?<=\w[?!…])(?=\s(?:[–—]\s)?[{_UPPER}]))?"
    rf"(?P<stop>(?<=\w\w\.)(?=\s(?:[–—]\s)?[{_UPPER}]))?"
)
_LAST_WORD = re.compile(r"(?:[^\W\d]+|\d+)$")
_ABBREVIATIONS = frozenset({*SOKRS, *INITIALS, *(word for pair in PAIR_SOKRS for word in pair)})
_rules = SentSegmenter()


def split_sentences(text: str) -> list[str]:
    """Sentences in order; a newline always ends one."""
    return [sentence for paragraph in text.splitlines() for sentence in _split(paragraph)]


def _split(paragraph: str) -> list[str]:
    if _SMILEY.search(paragraph):
        found = [sentence.text for sentence in razdel.sentenize(paragraph)]
    else:
        found, start = [], 0
        for match in _MARK.finditer(paragraph):
            end = match.end()
            if match["plain"] is not None or _ends(paragraph, start, match):
                found.append(paragraph[start:end].strip())
                start = end
        found.append(paragraph[start:].strip())
    return [sentence for sentence in found if sentence]


def _ends(paragraph: str, start: int, match: re.Match[str]) -> bool:
    """Whether the mark of ``match`` ends the sentence that begins at ``start``."""
    position, end = match.span()
    left = max(0, position - _WINDOW)
    if match["stop"] is not None and position - start > _BULLET:
        word = _LAST_WORD.search(paragraph, left, position)
        if word is not None and len(word[0]) > 1 and word[0].lower() not in _ABBREVIATIONS:
            return True
    sides = paragraph[left:position], paragraph[position:end], paragraph[end : end + _WINDOW]
    return not _rules.join(SentSplit(*sides, buffer=paragraph[start:position]))
