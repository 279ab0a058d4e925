"""Compares the training states of live peers: downloads them like a newcomer would, until two are of one step.

`python -m tests.scenarios.state_probe SPEC VOCABULARY ADDRESS PEER…` prints {"step", "peers", "difference"}: the
largest absolute difference between parameters of two peers at the same step of the same branch.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from swarm.admission import Admission
from swarm.averager import SwarmAverager
from swarm.dht import RecordBoard, open_dht
from swarm.identity import Identity
from swarm.records import Lease
from swarm.snapshot import Snapshot
from swarm.sockets import remove_our_sockets
from swarm.spec import load_spec
from swarm.state_sharing import StateUnavailable
from swarm.training_state import TrainingState, build_model

DEADLINE_SECONDS = 60.0


def main() -> None:
    spec_path, vocabulary, address, *peers = sys.argv[1:]
    spec = load_spec(Path(spec_path))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "identity.key"
        identity = Identity.load_or_create(path)
        dht = open_dht(
            identity_path=path,
            initial_peers=[address],
            host_maddrs=["/ip4/0.0.0.0/tcp/0"],
            admission=Admission(spec.run_id, ()),
        )
        state = TrainingState(spec, build_model(spec, vocab_size=int(vocabulary), pad_token_id=0))
        averager = SwarmAverager([torch.zeros(1)], dht, prefix=spec.run_id, spec=spec.averaging)
        print(
            json.dumps(compare(RecordBoard(dht, spec.run_id, identity), averager, state, peers)), flush=True
        )
        averager.shutdown()
        dht.shutdown()
        remove_our_sockets()
    os._exit(0)


def compare(
    board: RecordBoard, averager: SwarmAverager, state: TrainingState, peers: list[str]
) -> dict[str, object]:
    """Download everyone's state again and again until most are of one step; the widest gap between two of them."""
    deadline, best = time.monotonic() + DEADLINE_SECONDS, {"step": -1, "peers": 0, "difference": float("nan")}
    while time.monotonic() < deadline:
        board.read(Lease)  # tells where they listen
        snapshots = [found for peer in peers if (found := fetch(averager, state, peer)) is not None]
        groups = {(snapshot.step, snapshot.branch) for snapshot in snapshots}
        for step, branch in groups:
            same = [snapshot for snapshot in snapshots if (snapshot.step, snapshot.branch) == (step, branch)]
            if len(same) > int(str(best["peers"])):
                best = {"step": step, "peers": len(same), "difference": widest_gap(same, state)}
        if best["peers"] == len(peers):
            break
    return best


def fetch(averager: SwarmAverager, state: TrainingState, peer: str) -> Snapshot | None:
    try:
        return averager.download_state(peer, layouts=state.layouts, timeout=20)
    except StateUnavailable:
        return None


def widest_gap(snapshots: list[Snapshot], state: TrainingState) -> float:
    """Largest absolute difference between the parameters of any two."""
    count = len(state.parameters)
    return max(
        (
            float((own - other).abs().max())
            for one, another in itertools.combinations(snapshots, 2)
            for own, other in zip(one.tensors[:count], another.tensors[:count], strict=True)
        ),
        default=0.0,
    )


if __name__ == "__main__":
    main()
