"""What could not be read: where and why, counted in full, remembered up to a limit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_KEPT = 50


@dataclass
class DamageReport:
    """Collects places that readers had to skip.

    >>> report = DamageReport()
    >>> report.add("news.jsonl.gz", "line 17", "not JSON")
    >>> report.lost
    1
    """

    places: list[dict[str, str]] = field(default_factory=list)
    by_file: Counter[str] = field(default_factory=Counter)

    @property
    def lost(self) -> int:
        return sum(self.by_file.values())

    def add(self, file: str, position: str, reason: object) -> None:
        file = _writable(file)
        self.by_file[file] += 1
        if len(self.places) < _KEPT:
            place = {"file": file, "position": position, "reason": str(reason)}
            self.places.append({key: _writable(text) for key, text in place.items()})

    def as_json(self) -> dict[str, object]:
        return {"lost": self.lost, "by_file": dict(self.by_file), "places": self.places}


def _writable(text: str) -> str:
    """File names need not be Unicode; the summary must."""
    return text.encode("utf-8", "replace").decode()
