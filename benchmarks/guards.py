"""What admission and guards cost a global step, against the same swarm without them, in turns.

    python -m benchmarks.guards [--peers 3] [--repeats 10] [--hidden 192 2304] [--step-seconds 5]

Two swarms of real processes average the same number of values: one by invitation, with tickets checked and every part
judged; the other one open, with guards and gates taken out. Each turn is a round of gradients and one of parameters in
either swarm. Prints medians, and the difference as a share of a global step of `--step-seconds` besides averaging.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.interleaved import print_table
from benchmarks.round_times import Participant, Peer, spec_of
from coordinator.simulation.sizes import transfer_sizes
from swarm.admission import Admission
from swarm.identity import Identity
from swarm.spec import RunSpec
from swarm.ticket import write_ticket

KINDS = ("gradients", "state")


def without_guards(spec: RunSpec, _folder: str) -> Admission:
    """Called in a participant's process before anything starts: take the checks out."""
    from swarm.gate import Gate
    from swarm.guard import PartGuard

    async def everybody(_gate: Gate, _peer: str) -> bool:
        return True

    Gate.admits = everybody  # type: ignore[method-assign]
    PartGuard.why_refused = lambda *_given, **_named: None  # type: ignore[assignment]
    PartGuard.why_result_refused = lambda *_given, **_named: None  # type: ignore[assignment]
    return Admission(spec.run_id, ())


def by_invitation(spec: RunSpec, folder: str) -> Admission:
    """The rule of a run by invitation whose authority's key lies in the folder."""
    authority = Identity.load_or_create(Path(folder) / "authority.key")
    return Admission(spec.run_id, [authority.peer_id], by_invitation=True)


def ticket_for(folder: str, spec: RunSpec, peer_id: str) -> Any:
    """As a coordinator would write it."""
    return write_ticket(
        Identity.load_or_create(Path(folder) / "authority.key"), spec.run_id, peer_id, "bench"
    )


class GuardedParticipant(Participant):
    """Has a ticket, and publishes leases so that others know it."""

    def admission(self, identity: Identity) -> Admission:
        admission = by_invitation(self.spec, self.folder)
        admission.own_ticket = ticket_for(self.folder, self.spec, identity.peer_id)
        return admission


class UnguardedParticipant(Participant):
    """Believes everybody."""

    def admission(self, identity: Identity) -> Admission:
        return without_guards(self.spec, self.folder)


def round_of(peers: list[Peer], kind: str, step: int) -> float | None:
    """Seconds until the last of them has the average; None if it was not a round of all."""
    for peer in peers:
        peer.pipe.send({"do": "round", "kind": kind, "step": step, "group_size": len(peers)})
    answers = [peer.hear() for peer in peers]
    if not all(answer.get("complete") and answer["group"] == len(peers) for answer in answers):
        print(f"left out: {answers}", file=sys.stderr)
        return None
    return max(answer["total"] for answer in answers)


def measure(hidden_size: int, size: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of averaging per global step of both swarms."""
    spec = spec_of(hidden_size)
    swarms: dict[str, list[Peer]] = {"guarded": [], "unguarded": []}
    kinds = {"guarded": GuardedParticipant, "unguarded": UnguardedParticipant}
    seconds: dict[str, list[float]] = {name: [] for name in swarms}
    with tempfile.TemporaryDirectory() as folder:
        Identity.load_or_create(Path(folder) / "authority.key")
        try:
            for name, peers in swarms.items():
                for _number in range(size):
                    contact = peers[0].addresses if peers else []
                    peers.append(Peer(spec, folder, contact, kinds[name]))
            for step in range(1, repeats + 2):
                for name, peers in swarms.items():
                    for peer in peers:
                        peer.ask("lease")
                    parts = [round_of(peers, kind, step) for kind in KINDS]
                    if step > 1 and None not in parts:
                        seconds[name].append(sum(part for part in parts if part is not None))
        finally:
            for peers in swarms.values():
                for peer in peers:
                    peer.kill()
    return seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--hidden", type=int, nargs="+", default=[192, 2304], help="model widths")
    parser.add_argument("--step-seconds", type=float, default=5.0, help="of computing between two averagings")
    given = parser.parse_args()
    rows = []
    for hidden_size in given.hidden:
        seconds = measure(hidden_size, given.peers, given.repeats)
        if not all(seconds.values()):
            parser.exit(1, "no complete round: the machine is too busy to measure anything\n")
        plain, guarded = (statistics.median(seconds[name]) for name in ("unguarded", "guarded"))
        values = transfer_sizes(spec_of(hidden_size)).values
        share = (guarded - plain) / (given.step_seconds + plain)
        rows.append((f"{values / 1e6:.2f} M", f"{plain:.3f}", f"{guarded:.3f}", f"{share:+.1%}"))
    header = ("values", "without, s", "with, s", f"of a step with {given.step_seconds:g} s of computing")
    print_table(header, rows)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
