"""A peer's signs of life: what it says of itself, and that they go on whatever fails meanwhile."""

from __future__ import annotations

import queue
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from peer.presence import Description, Presence
from swarm.errors import OperationFailed
from swarm.records import MAX_LOSS, MAX_MEASURE, MAX_SPEED, Lease, PeerRecord
from swarm.spec import RunSpec
from swarm.states import PeerState

SPEC = RunSpec(name="small", leases={"period": 0.1, "expiration": 1.0})


class Board:
    """A DHT of its own: nobody else is there, and what is published can be waited for."""

    def __init__(self) -> None:
        self.run_id, self.contacts = SPEC.run_id, ()
        self.identity = SimpleNamespace(peer_id="me")
        self.admission = SimpleNamespace(own_ticket=None, evicted=frozenset())
        self.renewals_to_fail = 0
        self.published: queue.Queue[Lease | PeerRecord] = queue.Queue()

    def publish(self, record: Lease | PeerRecord, _timeout: float) -> bool:
        self.published.put(record)
        return True

    def read(self, _kind: type) -> dict:
        return {}

    def ask(self, _kind: type) -> Callable[[], dict]:
        return dict

    def renew_contacts(self) -> None:
        if self.renewals_to_fail:
            self.renewals_to_fail -= 1
            raise ValueError("out of order")

    def next(self, kind: type) -> Lease | PeerRecord:
        """The next record of this kind that is published."""
        while not isinstance(record := self.published.get(timeout=30), kind):
            pass
        return record


def presence_on(board: Board) -> Presence:
    return Presence(board, SPEC, Description("otter", "1", "cpu", client_mode=True))


def test_a_peer_whose_training_went_wrong_says_as_much_as_a_record_may():
    board = Board()
    presence = presence_on(board)
    presence.update(
        state=PeerState.TRAINING, loss=1e30, samples_per_second=1e30, round_seconds=1e30, text_position=1e30
    )
    presence.start()
    lease, record = board.next(Lease), board.next(PeerRecord)
    presence.withdraw()
    assert (lease.samples_per_second, lease.text_position) == (MAX_SPEED, MAX_MEASURE)
    assert (record.loss, record.round_seconds) == (MAX_LOSS, MAX_MEASURE)


def renew_leases(board: Board, times: int) -> None:
    for _ in range(times):
        board.next(Lease)


def test_one_failure_does_not_silence_a_peer(caplog):
    board = Board()
    board.renewals_to_fail = 1
    presence = presence_on(board)
    presence.start()
    renew_leases(board, times=4)
    presence.require_present()
    presence.withdraw()
    assert ["out of order" in message for message in caplog.messages] == [True]


def test_a_peer_that_cannot_see_the_swarm_any_more_says_so_and_ends(monkeypatch):
    board = Board()
    presence = presence_on(board)
    presence.start()

    def ask(_kind: type) -> Callable[[], dict]:
        raise OverflowError("a number of somebody")

    board.ask = ask
    monkeypatch.setattr("peer.presence.FAILING_SECONDS", 0.0)
    renew_leases(board, times=4)
    with pytest.raises(OperationFailed, match=r"follow the swarm.*a number of somebody"):
        presence.require_present()
    presence.withdraw()
