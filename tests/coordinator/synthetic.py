"""A made-up swarm whose peers come and go: seeded, and a plain function of time.

`SyntheticSwarm(seed, peers, start, length).status(t)` is what a tracker would report at Unix second t.
"""

import math
import random
from bisect import bisect_right
from dataclasses import dataclass

from coordinator.status import CheckpointStatus, PeerState, PeerStatus, RunStatus

ANIMALS = (
    "otter",
    "lynx",
    "heron",
    "badger",
    "falcon",
    "marten",
    "pike",
    "crane",
    "wolf",
    "hare",
    "owl",
    "sable",
)
HARDWARE = (
    ("cpu", "Intel Core i5-8250U", 1, 9.0),
    ("cpu", "AMD Ryzen 7 5800X", 1, 21.0),
    ("cuda", "NVIDIA GeForce RTX 3060", 1, 160.0),
    ("cuda", "NVIDIA GeForce RTX 4090", 1, 610.0),
    ("cuda", "Tesla T4", 1, 115.0),
    ("cuda", "Tesla V100-SXM3-32GB", 16, 4800.0),
)
JOINING, SYNCING, LEAVING, LOST = 8.0, 22.0, 5.0, 60.0
STEP = 45.0
AVERAGING = 4.0


@dataclass(frozen=True)
class Session:
    """One stay of a peer: polite or not at its end, stalled in the middle or not."""

    start: float
    end: float
    polite: bool
    stalled_at: float | None


@dataclass(frozen=True)
class SyntheticPeer:
    """Who it is, and when it is there."""

    peer_id: str
    name: str
    device: str
    hardware: str
    ranks: int
    speed: float
    client_mode: bool
    sessions: tuple[Session, ...]

    def state(self, t: float) -> PeerState | None:
        """State at `t`, None while away."""
        place = bisect_right([session.start for session in self.sessions], t) - 1
        if place < 0:
            return None
        session = self.sessions[place]
        if t >= session.end:
            return "lost" if not session.polite and t < session.end + LOST else None
        age = t - session.start
        if age < JOINING:
            return "joining"
        if age < JOINING + SYNCING:
            return "syncing"
        if session.polite and t >= session.end - LEAVING:
            return "leaving"
        if session.stalled_at is not None and 0 <= t - session.stalled_at < 120:
            return "stalled"
        return "averaging" if t % STEP < AVERAGING else "training"

    def worked(self, t: float) -> float:
        """Seconds of work done until `t`."""
        return sum(
            max(0.0, min(t, session.end) - session.start - JOINING - SYNCING)
            for session in self.sessions
            if session.start < t
        )


class SyntheticSwarm:
    """`peers` machines over `length` seconds from `start` on; the same seed gives the same swarm."""

    def __init__(self, seed: int, peers: int, start: float, length: float) -> None:
        self.start, self.length = start, length
        chance = random.Random(seed)
        self.peers = [self._peer(chance, number) for number in range(peers)]

    def _peer(self, chance: random.Random, number: int) -> SyntheticPeer:
        device, hardware, ranks, speed = chance.choices(HARDWARE, (3, 3, 5, 3, 4, 1))[0]
        alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
        return SyntheticPeer(
            peer_id="12D3KooW" + "".join(chance.choices(alphabet, k=44)),
            name=f"{ANIMALS[number % len(ANIMALS)]}-{number + 1}",
            device=device,
            hardware=hardware,
            ranks=ranks,
            speed=speed * chance.uniform(0.8, 1.2),
            client_mode=chance.random() < 0.3,
            sessions=tuple(self._sessions(chance)),
        )

    def _sessions(self, chance: random.Random) -> list[Session]:
        sessions = []
        # The swarm grows over the first third; then everyone is there about three quarters of the time.
        t = self.start + chance.betavariate(1.2, 3.0) * self.length
        while t < self.start + self.length:
            stay = max(90.0, chance.expovariate(1 / min(self.length / 3, 9 * 3600.0)))
            stalled = t + stay * chance.random() if chance.random() < 0.06 and stay > 600 else None
            sessions.append(Session(t, t + stay, chance.random() < 0.65, stalled))
            t += stay + LOST + 10 + chance.expovariate(3 / min(self.length / 3, 9 * 3600.0))
        return sessions

    def step(self, t: float) -> int:
        """Global step at `t`."""
        return int((t - self.start) // STEP)

    def loss(self, t: float) -> float:
        """A loss that falls as losses do, with a little noise."""
        progress = max(0.0, (t - self.start) / self.length)
        noise = 0.05 * math.sin(t / 7.0) + 0.04 * math.sin(t / 3.1)
        return 2.1 + 7.4 * math.exp(-9 * progress) + 1.1 * math.exp(-1.5 * progress) + noise

    def status(self, t: float) -> RunStatus:
        """What the tracker would report at `t`."""
        peers = [status for peer in self.peers if (status := self._peer_status(peer, t))]
        working = [peer for peer in peers if peer.state in ("training", "averaging")]
        total = sum(peer.samples_contributed for peer in peers) or 1
        speed = sum(peer.samples_per_second for peer in working)
        return RunStatus(
            run_id="rulean-synthetic",
            state="training" if working else "waiting",
            global_step=self.step(t),
            target_batch_size=max(64, int(speed * STEP)),
            peers_online=sum(peer.state != "lost" for peer in peers),
            samples_per_second=speed,
            samples_total=int(sum(peer.speed * peer.worked(t) for peer in self.peers)),
            goodput=0.97,
            train_loss=self.loss(t) if working else None,
            heldout_loss=self.loss(t) + 0.08 if working else None,
            peers=[peer.model_copy(update={"share": peer.samples_contributed / total}) for peer in peers],
            checkpoints=self._checkpoints(t),
            generated_at=t,
            started_at=self.start,
            target_steps=int(self.length * 1.4 // STEP),
            samples_accumulated=sum(peer.samples_accumulated for peer in peers),
            reason=None if working else "no peer has joined yet",
            join_line="peer join --initial-peers /ip4/203.0.113.7/tcp/31337/p2p/"
            "12D3KooWGRUVh7FhSpRqTUyYVbDYdCRcD4Pm4hvEcYfDLVwUfLqf",
        )

    def _peer_status(self, peer: SyntheticPeer, t: float) -> PeerStatus | None:
        state = peer.state(t)
        if state is None:
            return None
        working = state in ("training", "averaging")
        session = peer.sessions[bisect_right([s.start for s in peer.sessions], t) - 1]
        jitter = 1 + 0.05 * math.sin(t // 10 + peer.speed)
        return PeerStatus(
            peer_id=peer.peer_id,
            name=peer.name,
            state=state,
            device=peer.device,
            ranks=peer.ranks,
            samples_per_second=peer.speed * jitter if working else 0.0,
            samples_contributed=int(peer.speed * peer.worked(t)),
            global_step=self.step(t),
            loss=self.loss(t + peer.speed) if working else None,
            last_seen=t - session.end if state == "lost" else t % 5,
            client_mode=peer.client_mode,
            version="0.1.0",
            hardware=peer.hardware,
            error="cannot reach the group: 3 rounds in a row timed out" if state == "stalled" else None,
            samples_accumulated=int(peer.speed * max(0.0, t % STEP - AVERAGING)) if working else 0,
            handed_over=int(peer.speed * 3) if state == "leaving" else None,
        )

    def _checkpoints(self, t: float) -> list[CheckpointStatus]:
        steps = range(20, self.step(t) + 1, 20)
        return [
            CheckpointStatus(
                step=step,
                path=f"checkpoints/step-{step:08d}",
                heldout_loss=self.loss(self.start + step * STEP) + 0.08,
                digest=f"sha256:{random.Random(step).randbytes(32).hex()}",
                saved_at=self.start + step * STEP + 3,
            )
            for step in steps[-5:]
        ]
