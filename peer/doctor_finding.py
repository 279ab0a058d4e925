"""What `peer doctor` says of one thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(str, Enum):
    """`warn`: a peer would work, but worse than it could, or something could not be looked at. `fail`: it would not."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line for a person, and what to do about it if it is not fine.

    >>> Finding("memory", Verdict.OK, "12.0 GiB free").fix
    ''
    """

    check: str
    verdict: Verdict
    words: str
    fix: str = ""


def gib(count: float) -> str:
    """A number of bytes as people read it.

    >>> gib(1.5 * 2**30), gib(300 * 2**20)
    ('1.5 GiB', '300 MiB')
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
