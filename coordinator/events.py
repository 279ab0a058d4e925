"""What happened between two statuses of the run, in sentences.

`kind` and `data` are for programs (and for the page, which says the same in Russian); `sentence` is for
people. Kinds: joined, synced, stalled, recovered, left, lost, returned for peers; run_state, split,
reunited, restarted for the run. Others (checkpoint, refused, evicted, …) are recorded by whoever does the
thing, through an `Announce`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from coordinator.status import PeerStatus, RunStatus
from data_prep.counted import counted

WORKING = ("training", "averaging")
PEER_KINDS = ("joined", "synced", "stalled", "recovered", "left", "lost", "returned")


@dataclass(frozen=True)
class Event:
    """One line of the run's log; `peer_id` is the peer it is about, if it is about one."""

    kind: str
    sentence: str
    peer_id: str | None = None
    data: dict = field(default_factory=dict)


# takes what happened, for the history and the log
Announce = Callable[[Event], None]


def events_between(before: RunStatus, after: RunStatus) -> Iterator[Event]:
    """Events that turn status `before` into `after`, peers first."""
    old = {peer.peer_id: peer for peer in before.peers}
    new = {peer.peer_id: peer for peer in after.peers}
    for peer_id, peer in new.items():
        yield from _peer_events(old.get(peer_id), peer)
    for peer_id, peer in old.items():
        if peer_id not in new and peer.state != "lost":
            yield _left(peer) if peer.state == "leaving" else _lost(peer)
    yield from _run_events(before, after)


class Absence:
    """Keeps a restart of the coordinator from looking as if every peer had left and joined.

    Peers that were there before (`cut_off`, names by id) are heard again one by one, without an event; who is
    not heard within `patience` seconds went while nobody watched.
    """

    def __init__(self, heard_at: float | None, cut_off: dict[str, str], patience: float = 60.0) -> None:
        self._heard_at, self._cut_off, self._patience = heard_at, dict(cut_off), patience
        self._back_at: float | None = None

    def correct(self, events: Iterable[Event], now: float) -> Iterator[Event]:
        """`events`, less the joins that are none, with what the absence itself has to tell."""
        if self._heard_at is not None and self._back_at is None:
            self._back_at = now
            yield restarted(now - self._heard_at)
        for event in events:
            expected = self._cut_off.pop(event.peer_id or "", None)
            if expected is None or event.kind != "joined":
                yield event
        if self._back_at is not None and now - self._back_at > self._patience:
            for peer_id, name in self._cut_off.items():
                sentence = f"{name} went while the coordinator was away"
                yield Event("lost", sentence, peer_id, {"name": name, "unseen": True})
            self._cut_off.clear()


def restarted(silence: float) -> Event:
    """The coordinator records again after `silence` seconds."""
    sentence = f"the coordinator is back; nothing was recorded for {in_words(silence)}"
    return Event("restarted", sentence, data={"seconds": round(silence, 1)})


def _peer_events(old: PeerStatus | None, peer: PeerStatus) -> Iterator[Event]:
    def event(kind: str, sentence: str, **data: object) -> Event:
        return Event(kind, sentence, peer.peer_id, {"name": peer.name, **data})

    if old is None:
        if peer.state != "lost":
            device = peer.hardware or peer.device
            place = f" ({device})" if device else ""
            yield event("joined", f"{peer.name} joined{place}", device=device)
    elif old.state == peer.state:
        return
    elif peer.state == "lost":
        yield _left(old) if old.state == "leaving" else _lost(old)
    elif old.state == "lost":
        yield event("returned", f"{peer.name} is heard again")
    elif peer.state == "stalled":
        why = f": {peer.error}" if peer.error else ""
        yield event("stalled", f"{peer.name} stalled{why}", error=peer.error)
    elif old.state == "stalled" and peer.state in WORKING:
        yield event("recovered", f"{peer.name} trains again")
    elif old.state == "syncing" and peer.state in WORKING:
        sentence = f"{peer.name} has the swarm's state and trains from step {peer.global_step}"
        yield event("synced", sentence, step=peer.global_step)


def _left(peer: PeerStatus) -> Event:
    handed = f" and handed over {counted(peer.handed_over, 'sample')}" if peer.handed_over else ""
    data = {"name": peer.name, "samples": peer.handed_over}
    return Event("left", f"{peer.name} left on request{handed}", peer.peer_id, data)


def _lost(peer: PeerStatus) -> Event:
    samples = peer.samples_accumulated
    at_risk = (
        f"; up to {counted(samples, 'sample')} {'is' if samples == 1 else 'are'} lost" if samples else ""
    )
    data = {"name": peer.name, "samples": peer.samples_accumulated}
    return Event("lost", f"{peer.name} fell silent without leaving{at_risk}", peer.peer_id, data)


def _run_events(before: RunStatus, after: RunStatus) -> Iterator[Event]:
    if before.state != after.state:
        why = f": {after.reason}" if after.reason else ""
        data = {"state": after.state, "reason": after.reason}
        yield Event("run_state", f"the run is {after.state}{why}", data=data)
    if after.split and not before.split:
        yield Event("split", "the swarm has split: some peers do not average with the others")
    if before.split and not after.split:
        yield Event("reunited", "all peers average together again")


def in_words(seconds: float) -> str:
    """A duration in its two largest units, e.g. '3 min 12 s'."""
    for name, small, size, part in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if seconds >= size:
            rest = int(seconds % size // part)
            return f"{int(seconds // size)} {name}" + (f" {rest} {small}" if rest else "")
    return f"{seconds:.0f} s"
