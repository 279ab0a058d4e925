"""Who reads how much of the text, by what peers say of their speeds."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.shares import Shares
from peer.samples import MOST_OF_THE_MEDIAN, reading_speeds
from swarm.clock import SwarmView
from swarm.records import MAX_SPEED, Lease
from swarm.states import PeerState

LAPTOPS = [f"laptop-{number}" for number in range(20)]
UNITS = np.arange(20_000)


def view_of(speeds: dict[str, float]) -> SwarmView:
    leases = {
        name: Lease(
            run_id="run",
            issued=0.0,
            expires=9.0,
            state=PeerState.TRAINING,
            step=0,
            samples=0,
            samples_per_second=speed,
        )
        for name, speed in speeds.items()
    }
    return SwarmView(now=1.0, leases=leases)


@pytest.mark.parametrize("honest", [LAPTOPS[:1], LAPTOPS])
def test_who_lies_about_its_speed_does_not_get_all_of_the_text(honest):
    speeds = reading_speeds(view_of({"liar": MAX_SPEED, **dict.fromkeys(honest, 20.0)}))
    read = np.array([Shares(0, name, lambda: speeds).owned(1, UNITS) for name in honest])
    expected = len(honest) / (len(honest) + MOST_OF_THE_MEDIAN)
    assert read.any(axis=0).mean() == pytest.approx(expected, rel=0.5)
    assert read.sum(axis=0).max() == 1


def test_a_node_that_is_two_hundred_times_as_fast_as_most_is_believed():
    speeds = {**dict.fromkeys(LAPTOPS, 20.0), "node": 4000.0, "newcomer": 0.0}
    assert reading_speeds(view_of(speeds)) == speeds
