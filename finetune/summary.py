"""Scores of seeds to means and deviations, and the one JSON of everything a run ends with."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping, Sequence

import torch
import transformers

FORMAT = 1
SplitScores = Mapping[str, Mapping[str, float]]


def aggregate(seeds: Sequence[SplitScores]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Mean and sample standard deviation by split and metric; no deviation for a single seed."""
    splits = {split: dict.fromkeys(name for s in seeds for name in s.get(split, {})) for split in seeds[0]}
    return {
        split: {name: _mean_std([s[split][name] for s in seeds if name in s[split]]) for name in names}
        for split, names in splits.items()
    }


def mean_std_text(value: Mapping[str, float | None]) -> str:
    """`0.612 ± 0.013`, or the figure alone where there is one seed."""
    mean, std = value["mean"], value["std"]
    if mean is None:
        return "-"
    return f"{mean:.3f}" if std is None else f"{mean:.3f} ± {std:.3f}"


def surroundings() -> dict[str, str]:
    """Versions and hardware, for whoever wants the same figures again."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": device,
    }


def _mean_std(values: Sequence[float]) -> dict[str, float | None]:
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
    }
