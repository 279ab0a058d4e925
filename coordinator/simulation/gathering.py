"""How a round's group comes together: who arrives when, who is believed in and does not come, who is too late.

Members notice that the step is due with a lag, finish the micro-batch in hand, and look for the group. It is assembled
when everyone whom the first to arrive believed in is there, or when the matchmaking time is over, of those who came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from coordinator.simulation.simulated_peer import Doing, SimulatedPeer
from coordinator.simulation.swarm_model import SimulatedSwarm

SAME_MOMENT = 1e-6


class Stage(Enum):
    """Where a round is."""

    GATHERING = "gathering"
    GRADIENTS = "gradients"
    PARAMETERS = "parameters"


class Gathered(Enum):
    """What came of looking for a group."""

    GROUP = "group"
    ALONE = "alone"  # nobody else is believed in
    NOBODY = "nobody"  # somebody is believed in, and did not come


@dataclass(eq=False)
class Round:
    """A global step in the making.

    :param attempt: counts from 0
    :param arrivals: when each member has finished its micro-batch and looks for the group
    :param expected: members that the first to arrive believes in
    :param missing: of them, those who will not come; `fallen`: those who came and died
    :param group: members that take part, once assembled
    :param ends: when the stage under way ends, if nothing happens; for `NOBODY`, when the search is given up
    :param version: counts changes of plan, so that what was scheduled before is ignored
    """

    attempt: int = 0
    stage: Stage = Stage.GATHERING
    arrivals: dict[SimulatedPeer, float] = field(default_factory=dict)
    expected: int = 0
    missing: int = 0
    fallen: int = 0
    group: list[SimulatedPeer] = field(default_factory=list)
    group_size: int = 0
    partial: bool = False
    fails: bool = False
    ends: float = 0.0
    version: int = 0


class Gathering:
    """Brings the members of a round together.

    :param assembled: called with the round and what came of it
    :param abandoned: called when nobody is left in it
    :param late: called for each member that is not in the group, with its arrival
    """

    def __init__(
        self,
        swarm: SimulatedSwarm,
        assembled: Callable[[Round, Gathered], None],
        abandoned: Callable[[Round], None],
        late: Callable[[SimulatedPeer, float], None],
    ):
        self.swarm, self.spec = swarm, swarm.spec.averaging
        self.assembled, self.abandoned, self.late = assembled, abandoned, late

    def begin(self, round_: Round) -> None:
        """The step is due; members notice it one after the other."""
        swarm, now = self.swarm, self.swarm.now
        alone = len(swarm.present) + len(swarm.ghosts(now)) == 1
        seen = {peer: now if alone else now + swarm.view_lag() + swarm.view_lag() for peer in swarm.present}
        first = min(arrival_at(peer, t) for peer, t in seen.items())
        for peer, t in seen.items():
            noticed = t if alone else min(t, first + swarm.view_lag())  # or sees that somebody averages
            round_.arrivals[peer] = arrival_at(peer, noticed)
        self._expect(round_, first)

    def begin_again(self, round_: Round, group: list[SimulatedPeer]) -> None:
        """After a failed round, with the same peers and whoever has become a member meanwhile."""
        now = self.swarm.now
        for peer in group:
            peer.turn_to(Doing.WAITING, now)
            round_.arrivals[peer] = now
        for peer in self.swarm.present:
            round_.arrivals[peer] = arrival_at(peer, now)
        self._expect(round_, now)

    def newcomer(self, round_: Round, peer: SimulatedPeer) -> None:
        """It comes too if it is done with its first micro-batch in time; nobody waits for it."""
        round_.arrivals[peer] = arrival_at(peer, self.swarm.now + self.swarm.view_lag())

    def gone(self, round_: Round, peer: SimulatedPeer) -> None:
        """A member was killed, frozen or cut off before the group was assembled."""
        came = round_.arrivals.pop(peer) <= self.swarm.now
        round_.fallen += came
        round_.missing += not came
        self._plan(round_)

    def gives_up(self, arrived: float) -> float:
        """When matchmaking fails for somebody whom nobody joins."""
        return arrived + self.spec.matchmaking_time + 2 * self.spec.request_timeout

    def _expect(self, round_: Round, first: float) -> None:
        round_.missing = len(self.swarm.ghosts(first))
        round_.expected = len(round_.arrivals) + round_.missing
        self._plan(round_)

    def _plan(self, round_: Round) -> None:
        """Schedule the moment when the group is assembled."""
        round_.version += 1
        if not round_.arrivals:
            self.abandoned(round_)
            return
        deadline = min(round_.arrivals.values()) + self.spec.matchmaking_time
        everyone = max(round_.arrivals.values())
        moment = deadline if round_.missing else min(everyone, deadline)
        self.swarm.queue.at(moment, self._assemble, round_, round_.version)

    def _assemble(self, round_: Round, version: int) -> None:
        if round_.version != version:
            return
        now = self.swarm.now
        there = [peer for peer, arrival in round_.arrivals.items() if arrival <= now + SAME_MOMENT]
        later = {peer: t for peer, t in round_.arrivals.items() if t > now + SAME_MOMENT}
        gives_up = self.gives_up(min(round_.arrivals.values()))
        outcome = _outcome(round_, len(there))
        if outcome is Gathered.NOBODY and later and min(later.values()) <= gives_up:
            # one peer cannot be a group; it goes on looking, and takes the next who comes
            self.swarm.queue.at(min(later.values()), self._assemble, round_, version)
            return
        round_.stage, round_.group, round_.ends = Stage.GRADIENTS, there, max(now, gives_up)
        for peer in there:
            self._enter(peer, round_.arrivals[peer])
        for peer, arrival in later.items():
            self.late(peer, arrival)
        self.assembled(round_, outcome)

    def _enter(self, peer: SimulatedPeer, arrived: float) -> None:
        """The peer stopped computing when it arrived, and has waited since."""
        self.swarm.drop(peer)
        if peer.doing is Doing.COMPUTING:
            peer.stop_after_micro_batch(arrived)
            peer.turn_to(Doing.WAITING, arrived)


def arrival_at(peer: SimulatedPeer, noticed: float) -> float:
    """When a peer that notices at `noticed` that the step is due looks for the group."""
    return peer.micro_batch_end(noticed) if peer.rate > 0 else noticed


def _outcome(round_: Round, there: int) -> Gathered:
    if round_.expected == 1 and there == 1:
        return Gathered.ALONE
    return Gathered.GROUP if there + round_.fallen >= 2 else Gathered.NOBODY
