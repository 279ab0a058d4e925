"""How much may be on its way over links of all speeds."""

from __future__ import annotations

from swarm.flow_control import AHEAD_MESSAGES, messages_ahead


def test_less_is_on_its_way_over_slow_links():
    fewest, most = AHEAD_MESSAGES
    ahead = [messages_ahead(megabits, 2**16) for megabits in (0.0, 1.0, 50.0, 100.0, 1000.0)]
    assert ahead == sorted(ahead)
    assert (ahead[0], ahead[-1]) == (fewest, most)
    assert messages_ahead(None, 2**16) == most
