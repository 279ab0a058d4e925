"""Weak scaling of a node in numbers: what so many ranks did together, beside what one did alone.

The table has the columns of those that NVIDIA published for BERT on DGX-2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

PUBLISHED = "NVIDIA's BERT in fp16 on a DGX-2: 14.78/16 at length 128, 15.31/16 at 512"
# what noise alone may add to a scaling
BEYOND_IDEAL = 1.05
PARTS = ("compute", "data", "wait", "reduce", "update", "broadcast")


@dataclass(frozen=True)
class ScalingRow:
    """So many ranks in one precision: the median of their global steps.

    :param samples: of all ranks, in that step; `seconds`: that it took
    :param parts: those seconds, by what they went into (`PARTS`), as the leader saw it
    :param steps: how many it is the median of
    """

    ranks: int
    precision: str
    micro_batch_size: int
    samples: int
    seconds: float
    parts: dict[str, float]
    steps: int

    @property
    def samples_per_second(self) -> float:
        return self.samples / self.seconds


@dataclass
class ScalingReport:
    """All that was measured; there is a row of one rank for each precision that has any.

    :param cores: that ranks on the CPU share; None on GPUs, where each rank has one of its own
    :param accumulate: micro-batches of a rank per global step
    :param failures: what could not be measured, in words
    """

    device: str
    backend: str
    cores: int | None
    sequence_length: int
    accumulate: int
    parameters: int = 0
    rows: list[ScalingRow] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def row(self, ranks: int, precision: str) -> ScalingRow | None:
        """What was measured of these, if it was."""
        found = (row for row in self.rows if (row.ranks, row.precision) == (ranks, precision))
        return next(found, None)

    @property
    def precisions(self) -> list[str]:
        return list(dict.fromkeys(row.precision for row in self.rows))

    @property
    def counts(self) -> list[int]:
        return sorted({row.ranks for row in self.rows})

    def scaling(self, row: ScalingRow) -> float:
        """How many times as many samples/s as one rank; ideally as many as there are ranks."""
        return row.samples_per_second / self._alone(row).samples_per_second

    def allowed_scaling(self, row: ScalingRow) -> float:
        """What is left of the ideal if each rank computes as fast as one alone, and the exchanges take what they took.

        Both steps are counted with as many samples a rank. The wait for the slowest is not counted: with equal
        devices it is a part of one micro-batch, with a shared one it is what the others are computing.
        """
        alone = self._alone(row)
        # of as many samples as a rank had here
        equal_work = row.samples / row.ranks / alone.samples
        computing = equal_work * (alone.parts["compute"] + alone.parts["data"])
        exchanging = row.parts["reduce"] + row.parts["update"] + row.parts["broadcast"]
        return row.ranks * (computing + alone.parts["update"]) / (computing + exchanging)

    def shares_a_core(self, ranks: int) -> bool:
        return self.cores is not None and ranks > self.cores

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        rows = [
            {
                **asdict(row),
                "samples_per_second": row.samples_per_second,
                "scaling": self.scaling(row),
                "efficiency": self.scaling(row) / row.ranks,
                "allowed_scaling": self.allowed_scaling(row),
                "shares": {name: row.parts[name] / row.seconds for name in PARTS},
            }
            for row in self.rows
        ]
        return {**asdict(self), "rows": rows}

    def lines(self) -> Iterator[str]:
        """For people."""
        kind = f"{self.cores} cores, a rank is one thread" if self.cores is not None else "one GPU a rank"
        yield (
            f"{self.device}, {kind}, {self.backend}; {self.parameters:,} parameters, rows of {self.sequence_length} "
            f"tokens, {self.accumulate} micro-batches a rank and global step"
        )
        yield from self._scaling_table()
        yield ""
        yield from self._time_table()
        if any(self.shares_a_core(count) for count in self.counts):
            yield (
                f"more than {self.cores} ranks share {self.cores} cores, so their samples/s cannot grow: `allows` is "
                "the scaling that these times leave if each rank has a core of its own"
            )
        if any(self.scaling(row) > BEYOND_IDEAL * row.ranks for row in self.rows):
            yield (
                "more than the ideal: something else kept this machine busy while one rank was measured, so none of "
                "this can be relied on; run it again when it is idle"
            )
        yield PUBLISHED
        yield from self.failures

    def _scaling_table(self) -> Iterator[str]:
        names = self.precisions
        header = ["ranks", "batch/rank", *(f"{name} samples/s" for name in names)]
        if len(names) > 1:
            header.append("speed-up")
        yield from _table([*header, *(f"{name} scaling" for name in names)], map(self._cells, self.counts))

    def _cells(self, count: int) -> list[str]:
        rows = [self.row(count, name) for name in self.precisions]
        sizes = "/".join(dict.fromkeys(str(row.micro_batch_size) for row in rows if row is not None))
        rates = [row and row.samples_per_second for row in rows]
        cells = [str(count), sizes, *(f"{rate:.2f}" if rate else "-" for rate in rates)]
        if len(rows) > 1:
            fastest, slowest = rates[0], rates[-1]
            cells.append(f"{fastest / slowest:.2f}" if fastest and slowest else "-")
        return [*cells, *(f"{self.scaling(row):.2f}/{count}" if row else "-" for row in rows)]

    def _time_table(self) -> Iterator[str]:
        rows = (
            [
                str(row.ranks),
                row.precision,
                f"{row.seconds:.3f}",
                *(f"{row.parts[name] / row.seconds:.1%}" for name in PARTS),
                f"{self.allowed_scaling(row):.2f}/{row.ranks}",
            ]
            for row in self.rows
        )
        yield from _table(["ranks", "precision", "s a step", *PARTS, "allows"], rows)

    def _alone(self, row: ScalingRow) -> ScalingRow:
        alone = self.row(1, row.precision)
        if alone is None:
            raise ValueError(f"one rank was not measured in {row.precision}")
        return alone


def _table(header: Sequence[str], rows: Iterator[list[str]]) -> Iterator[str]:
    cells = [list(header), *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
