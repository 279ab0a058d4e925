"""Published results to set ours beside: the Russian SuperGLUE 1.1 leaderboard (russiansuperglue.com) and RuCoLA.

Leaderboard figures are of the hidden test sets. A task with two metrics has both, in the order of the
task's `metrics`; the overall score is the mean over the nine tasks of each task's mean.
RuCoLA: Mikhailov et al. 2022 (arXiv:2210.12814), Matthews correlation on its test set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Figures = tuple[float, ...]


@dataclass(frozen=True)
class Published:
    """One system's published figures by task."""

    name: str
    overall: float | None
    tasks: Mapping[str, Figures] = field(default_factory=dict)


def _superglue(name: str, overall: float, *figures: Figures, rucola: float | None = None) -> Published:
    names = ("LiDiRus", "RCB", "PARus", "MuSeRC", "TERRa", "RUSSE", "RWSD", "DaNetQA", "RuCoS")
    tasks = dict(zip(names, figures, strict=True))
    if rucola is not None:
        tasks["RuCoLA"] = (rucola,)
    return Published(name, overall, tasks)


PUBLISHED = (
    _superglue(
        "human", 0.811,
        (0.626,), (0.68, 0.702), (0.982,), (0.806, 0.42), (0.92,), (0.805,), (0.84,), (0.915,), (0.93, 0.89),
    ),
    _superglue(
        "RuLeanALBERT", 0.698,
        (0.403,), (0.361, 0.413), (0.796,), (0.874, 0.654), (0.812,), (0.789,), (0.669,), (0.76,), (0.9, 0.902),
    ),
    _superglue(
        "ruRoBERTa-large", 0.684,
        (0.343,), (0.357, 0.518), (0.722,), (0.861, 0.63), (0.801,), (0.748,), (0.669,), (0.82,), (0.87, 0.867),
        rucola=0.53,
    ),
    _superglue(
        "RuBERT-base", 0.578,
        (0.224,), (0.333, 0.509), (0.476,), (0.742, 0.399), (0.703,), (0.706,), (0.669,), (0.712,), (0.74, 0.716),
    ),
    _superglue(
        "TF-IDF", 0.434,
        (0.06,), (0.301, 0.441), (0.486,), (0.587, 0.242), (0.471,), (0.57,), (0.662,), (0.621,), (0.26, 0.252),
    ),
)  # fmt: skip
