"""How much of the text peers have seen together, while peers come and go, against independent shuffles.

    python -m benchmarks.overlap [--peers 24] [--units 20000] [--moves 3] [--speed-spread 4]

A simulation in steps of one lease period, with the real walk and shares. Peers differ in speed by up to
`--speed-spread`; within an epoch each is replaced `--moves` times on average: it stops without a word, its unread
text in hand is lost, and another one joins at the others' median position. Everyone sees who is there, and how
fast, one step late; speeds are told with 15 % of noise, smoothed as peers smooth it. Printed is the share of
distinct samples among all that were read, after a share of the corpus was read, and the best that is possible.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from statistics import median

import numpy as np

from benchmarks.interleaved import print_table
from data_prep.shares import Shares
from data_prep.walk import Cursor, Walk

MARKS = (0.25, 0.5, 0.75, 1.0)
TOLERATED_LAG = 0.05  # as peer/samples.py has it


class BareShard:
    """Blocks without text: the walk needs their number only."""

    name = source = "text"
    size, vocab_size, documents = 0, 0, 0

    def __init__(self, blocks: int) -> None:
        self._blocks = self.tokens = blocks

    def __len__(self) -> int:
        return self._blocks


class Peer:
    """Reads units of its walk at its speed, in units a step."""

    def __init__(self, name: str, speed: float, walk: Walk, cursor: Cursor) -> None:
        self.name, self.speed, self.walk, self.cursor = name, speed, walk, cursor
        self._credit, self._left, self._error = 0.0, list(cursor.units), 0.0

    def read(self) -> Iterator[int]:
        self._credit += self.speed
        while self._credit >= 1:
            while not self._left:
                self.cursor = self.walk.after(self.cursor)
                self._left = list(self.cursor.units)
            self._credit -= 1
            yield self._left.pop(0)

    def told_speed(self, rng: np.random.Generator) -> float:
        """The true speed, with an error that lasts a few steps and deviates by 15 %."""
        self._error = 0.8 * self._error + float(rng.normal(0, 0.15 * 0.6))
        return self.speed * max(0.3, 1 + self._error)

    def keep_up(self, others: float, tolerance: float) -> None:
        if others > self.walk.position(self.cursor) + tolerance:
            self.cursor = self.walk.at_least(self.cursor, others)


def distinct_shares(options: argparse.Namespace, *, shared: bool, seed: int) -> list[float]:
    """Share of distinct units among those read, at each mark."""
    rng = np.random.default_rng(seed)
    seen: Mapping[str, float] = {}
    number = 0

    def newcomer() -> Peer:
        nonlocal number
        number += 1
        name = f"peer {number}"
        shares = Shares(0, name, lambda: seen) if shared else None
        walk = Walk([BareShard(options.units)], 0 if shared else number + seed * 1000, shares)
        speed = float(options.speed_spread ** rng.uniform(-0.5, 0.5))
        return Peer(name, speed, walk, Cursor())

    peers = [newcomer() for _ in range(options.peers)]
    seen = {peer.name: 0.0 for peer in peers}
    read = np.zeros(options.units, dtype=np.int64)
    total, results = 0, []
    steps_an_epoch = options.units / sum(peer.speed for peer in peers)
    while len(results) < len(MARKS):
        for peer in peers:
            units = list(peer.read())
            np.add.at(read, units, 1)
            total += len(units)
        positions = [peer.walk.position(peer.cursor) for peer in peers]
        leaving = rng.random(len(peers)) < options.moves / steps_an_epoch
        peers = [newcomer() if leaves else peer for peer, leaves in zip(peers, leaving, strict=True)]
        for peer, leaves in zip(peers, leaving, strict=True):
            if shared:
                peer.keep_up(median(positions), 0.0 if leaves else TOLERATED_LAG)
        seen = {peer.name: peer.told_speed(rng) for peer in peers}
        if total >= MARKS[len(results)] * options.units:
            results.append(np.count_nonzero(read) / total)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, default=24)
    parser.add_argument("--units", type=int, default=20_000)
    parser.add_argument("--moves", type=float, default=3.0)
    parser.add_argument("--speed-spread", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    calm = argparse.Namespace(**{**vars(options), "moves": 0.0})
    columns = {
        "ideal": [1.0 for _ in MARKS],
        "shares, calm": distinct_shares(calm, shared=True, seed=options.seed),
        "shares, peers come and go": distinct_shares(options, shared=True, seed=options.seed),
        "independent shuffles": distinct_shares(options, shared=False, seed=options.seed),
    }
    print(
        f"{options.peers} peers, {options.units} units of text, each peer replaced {options.moves:g} times an epoch"
    )
    rows = [
        (f"{mark:.0%} of the corpus", *(f"{values[index]:.1%}" for values in columns.values()))
        for index, mark in enumerate(MARKS)
    ]
    print_table(("read together", *columns), rows)


if __name__ == "__main__":
    main()
