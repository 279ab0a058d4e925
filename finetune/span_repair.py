"""Repairs of the character spans of RUSSE, RWSD and RuCoS, whose labels are partly wrong in the published files.

Known defects, as the predecessor of this project described them: ends beyond the sentence, spaces and
punctuation inside the span, words cut short, and spans that lie on another word than the one asked about.
The last is recognised by lemmas (pymorphy3) and mended by looking for the word nearest to the given place:
first one with the same lemma, then one that is spelled alike. Every repair is counted, so that a log shows
how much of a data set was touched; nothing that is right is changed.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import Any

from rapidfuzz import fuzz

_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_LEAST_SIMILARITY = 75.0  # rapidfuzz ratio: two endings of one long word are above, two words below

Span = tuple[int, int]


class SpanRepair:
    """Repairs spans of one data set and counts what it did in `counts`.

    >>> repair = SpanRepair()
    >>> repair.of_word("Он вышел из дома .", 12, 40, "дом"), dict(repair.counts)
    ((12, 16), {'beyond the text': 1})
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def of_text(self, text: str, start: int, end: int) -> Span:
        """A span inside the text, without spaces or punctuation at its ends, and not cutting words.

        Returns an empty span (start == end) where nothing is left of it.
        """
        start, end = self._inside(text, start, end)
        start, end = self._trimmed(text, start, end)
        if start == end:
            return start, start
        whole = _whole_words(text, start, end)
        if whole != (start, end):
            self.counts["cut short"] += 1
        return whole

    def of_word(self, text: str, start: int, end: int, word: str) -> Span:
        """The span of an inflected form of `word`: the given one if it is that, else the nearest that is."""
        start, end = self.of_text(text, start, end)
        if start < end and _same_word(text[start:end], word):
            return start, end
        found = self._nearest(text, start, word)
        if found is None:
            self.counts["not found"] += 1
            return (start, end) if start < end else (0, len(text))
        if found != (start, end):
            self.counts["on another word"] += 1
        return found

    def of_phrase(self, text: str, phrase: str, near: int | None) -> Span:
        """Where `phrase` stands as whole words, nearest to `near`; else what is spelled alike."""
        pattern = re.compile(rf"(?<!\w){re.escape(phrase.strip())}(?!\w)", re.IGNORECASE)
        exact = [match.span() for match in pattern.finditer(text)]
        if exact:
            best = min(exact, key=lambda span: abs(span[0] - (near or 0)))
            # a quotation mark or bracket may stand between where the word begins and where its letters do
            if near is not None and any(
                letter.isalnum() for letter in text[min(near, best[0]) : max(near, best[0])]
            ):
                self.counts["on another word"] += 1
            return best
        alignment = fuzz.partial_ratio_alignment(phrase.lower(), text.lower())
        if alignment is None or alignment.score < _LEAST_SIMILARITY or len(text) < len(phrase):
            self.counts["not found"] += 1
            return 0, len(text)
        self.counts["spelled differently"] += 1
        return _whole_words(text, *_letters_only(text, alignment.dest_start, alignment.dest_end))

    def notes(self) -> Counter[str]:
        """The counts, as a log tells them."""
        return Counter({f"spans repaired: {kind}": number for kind, number in self.counts.items()})

    def _inside(self, text: str, start: int, end: int) -> Span:
        first, last = max(0, min(start, len(text))), max(0, min(end, len(text)))
        if (first, last) != (start, end):
            self.counts["beyond the text"] += 1
        return first, max(first, last)

    def _trimmed(self, text: str, start: int, end: int) -> Span:
        # punctuation at an end is the annotator's choice (an initial's full stop): only spaces count as a defect
        if text[start:end] != text[start:end].strip():
            self.counts["spaces inside"] += 1
        return _letters_only(text, start, end)

    def _nearest(self, text: str, place: int, word: str) -> Span | None:
        words = sorted(_WORD.finditer(text), key=lambda match: abs(match.start() - place))
        for match in words:
            if _same_word(match.group(), word):
                return match.span()
        alike = [(_similarity(match.group(), word), match.span()) for match in words]
        best = max(alike, key=lambda pair: pair[0], default=(0.0, (0, 0)))
        return best[1] if best[0] >= _LEAST_SIMILARITY else None


def _letters_only(text: str, start: int, end: int) -> Span:
    """The span without what is neither letter nor digit at its ends."""
    while start < end and not text[start].isalnum():
        start += 1
    while end > start and not text[end - 1].isalnum():
        end -= 1
    return start, end


def _whole_words(text: str, start: int, end: int) -> Span:
    """The span with the words whole that it cuts."""
    first, last = start, end
    for match in _WORD.finditer(text):
        if match.start() < start < match.end() and _cuts_letters(text, start):
            first = match.start()
        if match.start() < end < match.end() and _cuts_letters(text, end):
            last = match.end()
    return first, last


def _cuts_letters(text: str, place: int) -> bool:
    """Whether a boundary separates two letters or digits; one beside a hyphen may be meant ("генерал-" of
    "генерал-майор" is a word of its own)."""
    return text[place - 1].isalnum() and text[place].isalnum()


def _same_word(found: str, word: str) -> bool:
    if _folded(found) == _folded(word):
        return True
    return bool(_lemmas(_folded(found)) & _lemmas(_folded(word)))


def _similarity(found: str, word: str) -> float:
    forms = {_folded(found), *_lemmas(_folded(found))}
    return max(fuzz.ratio(form, _folded(word)) for form in forms)


def _folded(word: str) -> str:
    return word.lower().replace("ё", "е")


@lru_cache(maxsize=100_000)
def _lemmas(word: str) -> frozenset[str]:
    return frozenset(_folded(parse.normal_form) for parse in _analyzer().parse(word))


@lru_cache(maxsize=1)
def _analyzer() -> Any:
    import pymorphy3

    return pymorphy3.MorphAnalyzer()
