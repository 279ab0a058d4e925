"""How an operator writes down what differs between peers: speeds, bandwidths, durations.

250            everyone the same
20-200         anything between, every factor of two as likely as another
20,60,250      one of these, equally likely; a value written twice is twice as likely
~60            log-normal around a median of 60, two thirds within a factor of two
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from swarm.errors import BadInput

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LOG_NORMAL_SIGMA = math.log(2.0)


@dataclass(frozen=True)
class Distribution:
    """Positive numbers to draw from, as parsed from one of the forms above.

    >>> Distribution.parse("20,60", option="--speeds").draw(random.Random(0)) in (20.0, 60.0)
    True
    """

    kind: str
    values: tuple[float, ...]

    @classmethod
    def parse(cls, text: str, *, option: str) -> Distribution:
        """Raises `BadInput` naming the option."""
        try:
            if text.startswith("~"):
                return cls._checked("around", [text[1:]])
            if "," in text:
                return cls._checked("choice", text.split(","))
            if "-" in text:
                low, high = text.split("-")
                return cls._checked("between", [low, high])
            return cls._checked("choice", [text])
        except ValueError:
            raise BadInput(
                f"{option} {text!r}: give a positive number, a range 20-200, a list 20,60,250 or a median ~60"
            ) from None

    @classmethod
    def _checked(cls, kind: str, words: list[str]) -> Distribution:
        values = tuple(float(word) for word in words)
        if not all(0 < value < math.inf for value in values) or (kind == "between" and values[0] > values[1]):
            raise ValueError
        return cls(kind, values)

    def draw(self, rng: random.Random) -> float:
        """One value."""
        if self.kind == "around":
            return self.values[0] * math.exp(rng.gauss(0.0, LOG_NORMAL_SIGMA))
        if self.kind == "between":
            low, high = self.values
            return low * (high / low) ** rng.random()
        return rng.choice(self.values)


def parse_duration(text: str, *, option: str) -> float:
    """Seconds of `90`, `90s`, `30m`, `2h` or `1.5d`; raises `BadInput` naming the option."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in SECONDS else (text, "s")
    try:
        seconds = float(number) * SECONDS[unit]
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise BadInput(f"{option} {text!r}: give a duration such as 90s, 30m, 2h or 1d")
    return seconds
