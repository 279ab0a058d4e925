"""Members that a round begins without: a micro-batch longer than the matchmaking time, a state that came in mid-round.

Such a peer looks for the group, finds nobody, and then finds the step made: its samples are lost and it reloads. Only
if the round has failed meanwhile it is in time after all.
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator.simulation.gathering import Gathering
from coordinator.simulation.ledger import Loss
from coordinator.simulation.simulated_peer import Doing, SimulatedPeer
from coordinator.simulation.swarm_model import SimulatedSwarm


class Latecomers:
    """Follows late members to what becomes of them.

    :param rejoined: called when one is a member again
    """

    def __init__(
        self,
        swarm: SimulatedSwarm,
        gathering: Gathering,
        reload: Callable[[SimulatedPeer, Loss], None],
        depart: Callable[[SimulatedPeer], None],
        rejoined: Callable[[SimulatedPeer], None],
    ):
        self.swarm, self.gathering = swarm, gathering
        self.reload, self.depart, self.rejoined = reload, depart, rejoined

    def send(self, peer: SimulatedPeer, arrival: float) -> None:
        """It computes on to the end of its micro-batch, outside of the group."""
        self.swarm.drop(peer)
        self.swarm.queue.at(arrival, self._arrive, peer, peer.life)

    def _arrive(self, peer: SimulatedPeer, life: int) -> None:
        if peer.life != life:
            return
        now = self.swarm.now
        if peer.doing is Doing.COMPUTING:
            peer.stop_after_micro_batch(now)
            peer.turn_to(Doing.WAITING, now)
        if peer.state_step < self.swarm.step:
            self.reload(peer, Loss.LATE)
        else:
            self.swarm.queue.at(self.gathering.gives_up(now), self._give_up, peer, life)

    def _give_up(self, peer: SimulatedPeer, life: int) -> None:
        """Its own matchmaking found nobody."""
        if peer.life != life:
            return
        self.swarm.ledger.rounds_failed += 1
        if peer.state_step < self.swarm.step:
            self.reload(peer, Loss.LATE)
        elif peer.leaving:
            self.depart(peer)
        else:
            self.swarm.compute(peer)
            self.rejoined(peer)
