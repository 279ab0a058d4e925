"""In which order the keeper asks donors for a state, and who together.

Donors that have the same state send parts of it together: one that is slow holds nobody up. When no good state comes of
it, nobody knows whose fault that is. So for a while, longer the more time was lost, each of them is asked by itself and
after all others. Only one that was refused by itself is not asked at all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from swarm.clock import SwarmView

# whose state was refused is not asked again for so long
SHUN_SECONDS = 30.0
# those who cost us time in vain come last for this many times as long
LAST_PER_LOSS = 10.0


class DonorOrder:
    """What one who asks has learned of donors, by peer id.

    >>> order, view = DonorOrder(), SwarmView(now=0.0)
    >>> order.set_back(["slow"], seconds=600.0)
    >>> list(order.groups(["slow", "good"], view))
    [['good'], ['slow']]
    """

    def __init__(self) -> None:
        # until when
        self._shunned: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def willing(self, donors: Sequence[str]) -> list[str]:
        """Those that are not shunned."""
        return [donor for donor in donors if self._shunned.get(donor, 0.0) < time.monotonic()]

    def groups(self, donors: Sequence[str], view: SwarmView) -> Iterator[list[str]]:
        """Whom to ask next; whoever is set back meanwhile as one of several comes again by itself."""
        asked_alone = set[str]()
        left = [donor for donor in self.willing(donors) if not self._comes_last(donor)]
        while left:
            together = view.fellows(left)
            yield together
            if len(together) == 1:
                asked_alone.update(together)
            left = [donor for donor in left if donor not in together]
        last = [donor for donor in self.willing(donors) if self._comes_last(donor)]
        for donor in sorted(last, key=self._last.__getitem__):
            if donor not in asked_alone:
                yield [donor]

    def _comes_last(self, donor: str) -> bool:
        return self._last.get(donor, 0.0) >= time.monotonic()

    def set_back(self, donors: Sequence[str], seconds: float) -> None:
        """Call when no good state came of these, after so many seconds."""
        self._last.update(dict.fromkeys(donors, time.monotonic() + LAST_PER_LOSS * seconds))

    def shun(self, donor: str) -> None:
        """Call when a state was refused that this one sent by itself."""
        self._shunned[donor] = time.monotonic() + SHUN_SECONDS

    def forgive(self, donors: Sequence[str]) -> None:
        """Call when a good state came of these."""
        for donor in donors:
            self._last.pop(donor, None)
