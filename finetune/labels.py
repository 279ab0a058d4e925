"""The label words of every benchmark task: in the files, and in the leaderboards' submissions.

They differ by task and have tripped others, so they stand in one table. A class is its position in
`LabelWords.classes`. Numbers are accepted for yes-and-no labels only: which class of an entailment task
would be number 1 is not written anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LabelWords:
    """Classes as the files spell them, and what the leaderboard wants to read for each."""

    classes: tuple[str, ...]
    submission: tuple[Any, ...]
    aliases: dict[str, int] = field(default_factory=dict)

    def class_of(self, value: Any) -> int | None:
        """Position of a label found in a file, or None if it is no label of this task."""
        word = str(value).strip().lower()
        if word in self.classes:
            return self.classes.index(word)
        return self.aliases.get(word)


def _words(*words: str) -> LabelWords:
    return LabelWords(words, words)


def _yes_no(false: Any, true: Any) -> LabelWords:
    return LabelWords(("false", "true"), (false, true), {"0": 0, "1": 1})


_ZERO_ONE = LabelWords(("0", "1"), (0, 1), {"false": 0, "true": 1})

LABEL_WORDS = {
    "LiDiRus": _words("entailment", "not_entailment"),
    "RCB": _words("entailment", "contradiction", "neutral"),
    "PARus": LabelWords(("0", "1"), (0, 1), {"choice1": 0, "choice2": 1}),
    "MuSeRC": _ZERO_ONE,
    "TERRa": _words("entailment", "not_entailment"),
    "RUSSE": _yes_no("false", "true"),
    "RWSD": _yes_no("False", "True"),
    "DaNetQA": _yes_no("false", "true"),
    "RuCoLA": _ZERO_ONE,
}
