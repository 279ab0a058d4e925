"""What went wrong with one peer, in words: the same in its own panel and in the coordinator's status."""

from __future__ import annotations

from collections.abc import Mapping


def describe_trouble(partial_rounds: int, failed_rounds: int, reloads: Mapping[str, int]) -> str:
    """Counts by reason; empty if nothing went wrong.

    >>> describe_trouble(2, 0, {"was suspended": 1})
    '2 partial rounds, 1 reloads (was suspended)'
    """
    counted = {
        "partial rounds": partial_rounds,
        "failed rounds": failed_rounds,
        **{f"reloads ({reason})": count for reason, count in reloads.items()},
    }
    return ", ".join(f"{count} {what}" for what, count in counted.items() if count)
