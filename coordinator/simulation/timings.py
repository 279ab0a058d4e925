"""How long things take: simple models fitted to measured times.

    exchange  = a + b · (group - 1) + c · bytes + 2 (group - 1)/group · bytes / bandwidth of the slowest member
    handshake = a + b · (group - 1)

Fitted to the medians of the measured cells by non-negative least squares, so that one slow round does not bend them.
What was measured with all peers on one machine contains their waiting for each other's cores: the terms that grow
with work are divided by that crowding, and multiplied again when a shared machine is simulated. The spread of single
rounds around their median is log-normal.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from coordinator.simulation.calibration import Calibration, MeasuredRound

# share of the nominal bandwidth that all-reduce reached between shaped network namespaces, 2 to 4 peers
BANDWIDTH_EFFICIENCY = 0.85
BITS = 8 / 1e6
DEFAULT_JOIN_SECONDS = 10.0
_NORMAL_QUANTILE_90 = 1.2816


@dataclass(frozen=True)
class LinearTime:
    """`fixed` seconds, `per_partner` for every other member, `per_byte`; the last two on an uncrowded machine."""

    fixed: float
    per_partner: float
    per_byte: float = 0.0

    def at(self, group_size: int, size: float, crowding: float) -> float:
        """Seconds; at least the fixed part."""
        return self.fixed + crowding * (self.per_partner * (group_size - 1) + self.per_byte * size)


@dataclass(frozen=True)
class Timings:
    """Fitted models; `shared_cores` is None when every simulated peer has a machine of its own.

    >>> timings = fit(load_calibration())                                              # doctest: +SKIP
    >>> timings.exchange("gradients", group_size=64, size=86e6, bandwidth=100.0)        # doctest: +SKIP
    """

    handshake_model: LinearTime
    exchange_models: dict[str, LinearTime]
    join_seconds: tuple[float, ...] = (DEFAULT_JOIN_SECONDS,)
    download_fixed: float = 0.0
    download_per_byte: float = 0.0
    update_per_value: float = 0.0
    lease_seconds: float = 0.0
    spread: float = 0.0
    shared_cores: int | None = None

    def on_shared_machine(self, cores: int) -> Timings:
        """The same times when all peers share so many cores."""
        return replace(self, shared_cores=cores)

    def handshake(self, group_size: int, rng: random.Random | None = None) -> float:
        """Seconds from the last member's arrival until the group exchanges."""
        return self._noisy(self.handshake_model.at(group_size, 0.0, self._crowding(group_size)), rng)

    def exchange(
        self, kind: str, group_size: int, size: float, bandwidth: float, rng: random.Random | None = None
    ) -> float:
        """Seconds to average `size` bytes a peer when the slowest member has `bandwidth` Mbit/s."""
        local = self.exchange_models[kind].at(group_size, size, self._crowding(group_size))
        travelling = 2 * (group_size - 1) / group_size * size * BITS / (bandwidth * BANDWIDTH_EFFICIENCY)
        return self._noisy(local, rng) + travelling

    def join(self, rng: random.Random) -> float:
        """Seconds from a process's start until it asks for the state: one of the measured ones."""
        return rng.choice(self.join_seconds)

    def download(self, size: float, bandwidth: float) -> float:
        """Seconds to fetch a state of `size` bytes at `bandwidth` Mbit/s."""
        return (
            self.download_fixed
            + self.download_per_byte * size
            + size * BITS / (bandwidth * BANDWIDTH_EFFICIENCY)
        )

    def update(self, values: int, group_size: int) -> float:
        """Seconds of the optimizer's update."""
        return self.update_per_value * values * self._crowding(group_size)

    def _crowding(self, group_size: int) -> float:
        return crowding(group_size, self.shared_cores)

    def _noisy(self, seconds: float, rng: random.Random | None) -> float:
        return seconds * math.exp(rng.gauss(0.0, self.spread)) if rng and self.spread else seconds


def crowding(busy: int, cores: int | None) -> float:
    """How much longer work takes when so many processes share so many cores."""
    return max(1.0, busy / cores) if cores else 1.0


def fit(calibration: Calibration) -> Timings:
    """Fit all models; a kind of round that was not measured takes the other kind's."""
    cores = calibration.cores if calibration.shared_machine else None
    exchanges = {}
    for kind in ("gradients", "state"):
        rounds = [one for one in calibration.rounds if one.kind == kind] or list(calibration.rounds)
        exchanges[kind] = _fit_exchange(rounds, cores)
    download_fixed, download_per_byte = _fit_line([(one.bytes, one.seconds) for one in calibration.downloads])
    updates = [one.seconds / one.values for one in calibration.updates]
    return Timings(
        handshake_model=_fit_handshake(calibration.rounds, cores),
        exchange_models=exchanges,
        join_seconds=calibration.joins or (DEFAULT_JOIN_SECONDS,),
        download_fixed=download_fixed,
        download_per_byte=download_per_byte,
        update_per_value=statistics.median(updates) if updates else 0.0,
        lease_seconds=statistics.median(calibration.leases) if calibration.leases else 0.0,
        spread=_spread(calibration.rounds),
    )


def _fit_exchange(rounds: Iterable[MeasuredRound], cores: int | None) -> LinearTime:
    cells = _cell_medians(rounds, lambda one: one.seconds_allreduce)
    rows = [
        [1.0, (group - 1) * crowding(group, cores), size * crowding(group, cores)]
        for (group, size), _seconds in cells
    ]
    return LinearTime(*_non_negative(rows, [seconds for _cell, seconds in cells]))


def _fit_handshake(rounds: Iterable[MeasuredRound], cores: int | None) -> LinearTime:
    cells = _cell_medians(rounds, lambda one: one.seconds_matchmaking)
    rows = [[1.0, (group - 1) * crowding(group, cores)] for (group, _size), _seconds in cells]
    return LinearTime(*_non_negative(rows, [seconds for _cell, seconds in cells]))


def _fit_line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """(fixed, per unit) of medians, both non-negative; zeros for no points."""
    if not points:
        return 0.0, 0.0
    by_size: dict[float, list[float]] = {}
    for size, seconds in points:
        by_size.setdefault(size, []).append(seconds)
    fixed, slope = _non_negative(
        [[1.0, size] for size in by_size], [statistics.median(seconds) for seconds in by_size.values()]
    )
    return fixed, slope


def _cell_medians(
    rounds: Iterable[MeasuredRound], seconds: Callable[[MeasuredRound], float]
) -> list[tuple[tuple[int, float], float]]:
    cells: dict[tuple[int, float], list[float]] = {}
    for one in rounds:
        cells.setdefault((one.group_size, one.bytes), []).append(seconds(one))
    return [(cell, statistics.median(values)) for cell, values in sorted(cells.items())]


def _non_negative(rows: list[list[float]], targets: list[float]) -> list[float]:
    """Least squares of relative errors: a big round must not outweigh all the small ones."""
    import numpy as np
    from scipy.optimize import nnls

    matrix, goal = np.array(rows), np.array(targets)
    weight = 1.0 / np.maximum(goal, 1e-3)
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-12)
    solution, _residual = nnls(matrix / scale * weight[:, None], goal * weight)
    return [float(value) for value in solution / scale]


def _spread(rounds: Iterable[MeasuredRound]) -> float:
    """Standard deviation of log(exchange / median of its cell), from the upper decile: robust, and never negative."""
    cells: dict[tuple[str, int, float], list[float]] = {}
    for one in rounds:
        cells.setdefault((one.kind, one.group_size, one.bytes), []).append(one.seconds_allreduce)
    ratios = sorted(
        math.log(max(value, 1e-4) / max(statistics.median(values), 1e-4))
        for values in cells.values()
        for value in values
    )
    return max(0.0, ratios[int(0.9 * (len(ratios) - 1))] / _NORMAL_QUANTILE_90)
