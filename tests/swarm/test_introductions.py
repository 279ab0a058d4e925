"""Who is to be connected to, from the leases that were seen."""

from __future__ import annotations

import time

from swarm.introductions import Acquaintances
from swarm.records import Lease
from swarm.states import PeerState

HERE, THERE = ("/ip4/192.0.2.1/tcp/4001",), ("/ip4/192.0.2.2/tcp/4001",)


def lease(addresses: tuple[str, ...] = (), seconds: float = 10.0) -> Lease:
    now = time.time()
    return Lease(
        run_id="run",
        issued=now - 20,
        expires=now + seconds,
        state=PeerState.TRAINING,
        step=0,
        samples=0,
        addresses=addresses,
    )


def test_a_peer_is_new_once_and_again_when_it_listens_elsewhere():
    acquaintances = Acquaintances("me")
    assert acquaintances.hear_of({"me": lease(HERE), "other": lease(HERE)}) == {"other": HERE}
    assert acquaintances.hear_of({"other": lease(HERE)}) == {}
    assert acquaintances.hear_of({"other": lease(THERE)}) == {"other": THERE}
    assert acquaintances.book() == {"other": THERE}


def test_a_peer_that_does_not_listen_is_nobody_to_connect_to():
    acquaintances = Acquaintances("me")
    assert acquaintances.hear_of({"shy": lease()}) == {}
    assert acquaintances.book() == {}


def test_only_expired_leases_are_lost_and_their_addresses_stay():
    acquaintances = Acquaintances("me")
    acquaintances.hear_of({"gone": lease(HERE, seconds=-5), "here": lease(THERE)})
    acquaintances.hear_of({"here": lease(THERE)})
    assert acquaintances.lost() == ["gone"]
    assert set(acquaintances.book()) == {"gone", "here"}


def test_whoever_is_gone_for_long_is_forgotten():
    acquaintances = Acquaintances("me")
    assert acquaintances.hear_of({"gone": lease(HERE, seconds=-3600)}) == {}
    assert acquaintances.lost() == []
