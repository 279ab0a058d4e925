"""Who reads which piece of text, when many read the same text at once: no two the same, nobody in charge.

All readers of a run walk one common order of the text (`walk.py`) and take the pieces that are theirs. Whose a
piece is follows from the piece and from who takes part, by weighted rendezvous hashing (Thaler and Ravishankar,
1998; weights after Schindelhauer and Schomaker, 2005): every member draws a number for the piece, the greatest
wins, and a member twice as fast wins twice as often. So all come through the text at about the same pace; one
that joins or leaves changes only its own share; members need not agree on anything but who is there, and for
the moments in which they do not, a piece is read twice or passed over. Members' order and seeds of their own
would make them see 63 % of the text together by the time they have read as much as all of it (1 - 1/e);
`benchmarks/overlap.py` measures both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from data_prep.errors import DataError
from data_prep.seeds import stable_hash

Members = Callable[[], Mapping[str, float]]
_STEPS_PER_DOUBLING = 2  # finer weights would follow the noise of measured speeds, and shares with them


class Shares:
    """The share of one reader.

    :param run_seed: fixes the common order of the text
    :param own: our name among the members
    :param members: names and speeds of all who take part right now; 0 is a speed not known yet. Called from the
        thread that reads ahead
    :param rank: which of `ranks` processes that share a name this one is

    >>> shares = Shares(0, "a", lambda: {"a": 10.0, "b": 5.0})
    >>> round(float(shares.owned(7, np.arange(10_000)).mean()), 1)
    0.7
    """

    def __init__(self, run_seed: int, own: str, members: Members, *, rank: int = 0, ranks: int = 1) -> None:
        if not 0 <= rank < ranks:
            raise DataError(f"ranks are numbered from 0 to {ranks - 1}, not {rank}")
        self.run_seed, self.own = run_seed, own
        self._members, self._rank, self._ranks = members, rank, ranks

    def owned(self, salt: int, units: np.ndarray) -> np.ndarray:
        """Which of the units (numbers) are ours; `salt` names what they are units of."""
        weights = even_weights({self.own: 0.0, **self._members()})
        best = np.full(len(units), -np.inf)
        mine = np.zeros(len(units), dtype=bool)
        for name, weight in weights.items():
            score = weight / -np.log(_uniform(stable_hash("share", name, salt), units))
            mine = np.where(score > best, name == self.own, mine)
            best = np.maximum(score, best)
        if self._ranks > 1:
            mine &= _mixed(_seeded(stable_hash("rank", salt), units)) % np.uint64(self._ranks) == self._rank
        return mine


def even_weights(speeds: Mapping[str, float]) -> dict[str, float]:
    """Speeds rounded to steps of a factor; those not known yet count as the mean of the others.

    In the order of the names, so that draws that are equal have the same winner everywhere.
    """
    known = [speed for speed in speeds.values() if speed > 0]
    usual = sum(known) / len(known) if known else 1.0
    return {name: _rounded(speed if speed > 0 else usual) for name, speed in sorted(speeds.items())}


def _rounded(speed: float) -> float:
    return 2.0 ** (round(_STEPS_PER_DOUBLING * math.log2(speed)) / _STEPS_PER_DOUBLING)


def _uniform(seed: int, units: np.ndarray) -> np.ndarray:
    """A number in (0, 1) for every unit."""
    return ((_mixed(_seeded(seed, units)) >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def _seeded(seed: int, units: np.ndarray) -> np.ndarray:
    return units.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Finish of splitmix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
