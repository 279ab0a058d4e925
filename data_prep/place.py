"""Where a peer begins in the order of text that all peers of a run share.

Peers with orders of their own repeat each other: together they have seen 63 % of the text by the time they
have read as much as all of it (1 - 1/e). Peers that walk one common order from places spread evenly over it
repeat nothing until then. Places are given by number of arrival, so nobody needs to know how many peers
there will be: the points of van der Corput's sequence are spread evenly after any number of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.errors import DataError
from data_prep.flow import BlockOrder
from data_prep.seeds import stable_hash
from data_prep.shards import ShardReader


@dataclass(frozen=True)
class Place:
    """``run_seed`` fixes the common order; ``number`` counts arrivals (and ranks) from 0.

    >>> Place(run_seed=0, number=1).start, Place(0, 2).start, Place(0, 3).start
    (0.5, 0.25, 0.75)
    """

    run_seed: int
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise DataError(f"places are numbered from 0, not {self.number}")

    @property
    def start(self) -> float:
        """Van der Corput's radical inverse in base 2."""
        result, digit, number = 0.0, 0.5, self.number
        while number:
            result += digit * (number & 1)
            number, digit = number >> 1, digit / 2
        return result

    def order(self, readers: Sequence[ShardReader], name: str) -> BlockOrder:
        seed = stable_hash("artel order", self.run_seed, name)
        return BlockOrder(readers, seed, window_blocks=1, start=self.start)
