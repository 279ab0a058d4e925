"""A real process that makes averaging rounds as told, one JSON object in and out per line.

Used by tests that need several participants: hivemind's averager and DHT are processes keyed to their creator.
The first line is the setup: {"folder", "values", "compression", "step", "initial_peers"}, and on request "client_mode",
"breaks_off": so many streams of state end after their first message, and "names_twice": leads groups in which everybody
is named twice. The answer is the peer id and addresses. Then commands: {"round": kind, "step", "group_size", "weight",
"samples", and on request "bandwidth"}, {"download": peer ids} or {"count": "followers"}: tasks left behind for those.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import AsyncIterator  # noqa: UP035  hivemind recognises streams by typing's AsyncIterator only

import torch
from hivemind.p2p import P2PContext
from hivemind.proto.averaging_pb2 import DownloadData, JoinRequest, MessageFromLeader
from hivemind.proto.runtime_pb2 import ExpertRequest
from hivemind.utils import MPFuture

from swarm.admission import Admission
from swarm.averager import SwarmAverager
from swarm.dht import open_dht
from swarm.identity import Identity
from swarm.rounds import RoundFailed, RoundKind
from swarm.snapshot import Layout, Snapshot
from swarm.spec import AveragingSpec
from swarm.state_sharing import StateUnavailable


class Participant(SwarmAverager):
    """An averager that can be looked into."""

    def count_followers_tasks(self) -> int:
        """How many tasks wait for this peer to follow another leader than the followers that it has led."""
        future: MPFuture = MPFuture()
        self._outer_pipe.send(("_count", [], {"future": future}))
        return future.result(10)

    async def _count(self, future: MPFuture) -> None:
        future.set_result(len(self._matchmaking.was_accepted_to_group._waiters))  # type: ignore[attr-defined]


def main() -> None:
    torch.set_num_threads(1)
    setup = json.loads(sys.stdin.readline())
    identity_path = Path(tempfile.mkdtemp(dir=setup["folder"])) / "identity.key"
    Identity.generate().save(identity_path)
    dht = open_dht(
        identity_path=identity_path,
        initial_peers=setup["initial_peers"],
        client_mode=setup.get("client_mode", False),
        admission=Admission("test", ()),
    )
    Participant.rpc_download_pieces = breaking_off(setup.get("breaks_off", 0))  # type: ignore[method-assign]
    if setup.get("names_twice"):
        Participant.rpc_join_group = naming_everybody_twice()  # type: ignore[method-assign]
    spec = AveragingSpec(
        matchmaking_time=2.5,
        request_timeout=1.0,
        next_chunk_timeout=4.0,
        allreduce_timeout=15.0,
        gradient_compression=setup["compression"],
    )
    buffers = [tensor_of(value) for value in setup["values"]]
    averager = Participant(
        buffers,
        dht,
        prefix="test",
        spec=spec,
        client_mode=setup.get("client_mode", False),
        state_source=lambda: contextlib.nullcontext(Snapshot(setup["step"], "", buffers)),
    )
    say(peer_id=str(dht.peer_id), addresses=[str(address) for address in dht.get_visible_maddrs()])
    for line in sys.stdin:
        say(**obey(json.loads(line), averager, buffers))
    averager.shutdown()
    dht.shutdown()
    os._exit(0)


def breaking_off(times: int) -> Callable[..., AsyncIterator[DownloadData]]:
    """Hand state out, but the first few times only the beginning of it."""
    whole, left = SwarmAverager.rpc_download_pieces, [None] * times

    async def rpc_download_pieces(
        self: SwarmAverager, wishes: AsyncIterator[ExpertRequest], context: P2PContext
    ) -> AsyncIterator[DownloadData]:
        breaks_off = bool(left) and left.pop() is None
        async for message in whole(self, wishes, context):
            yield message
            if breaks_off:
                return

    return rpc_download_pieces


def naming_everybody_twice() -> Callable[..., AsyncIterator[MessageFromLeader]]:
    """Lead groups in which every member is named twice."""
    whole = SwarmAverager.rpc_join_group

    async def rpc_join_group(
        self: SwarmAverager, request: JoinRequest, context: P2PContext
    ) -> AsyncIterator[MessageFromLeader]:
        async for message in whole(self, request, context):
            message.ordered_peer_ids.extend(list(message.ordered_peer_ids))
            message.gathered.extend(list(message.gathered))
            yield message

    return rpc_join_group


def tensor_of(value: list | dict) -> torch.Tensor:
    """Values as they stand; {"codes": [...]}, which are bytes; {"fill", "size"}, all the same; or {"seed", "size"}: too
    many normal values to pass.
    """
    if isinstance(value, list):
        return torch.tensor(value)
    if "fill" in value:
        return torch.full((value["size"],), value["fill"])
    if "codes" in value:
        return torch.tensor(value["codes"], dtype=torch.uint8)
    return seeded(**value)


def seeded(seed: int, size: int) -> torch.Tensor:
    """Normal values."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def obey(command: dict, averager: Participant, buffers: list[torch.Tensor]) -> dict:
    if "download" in command:
        try:
            snapshot = averager.download_state(
                *command["download"].split(), layouts=[Layout.of(buffer) for buffer in buffers], timeout=10
            )
        except StateUnavailable as error:
            return {"failed": str(error)}
        return {"step": snapshot.step, "values": [shown(tensor) for tensor in snapshot.tensors]}
    if "count" in command:
        return {command["count"]: averager.count_followers_tasks()}
    averager.bandwidth = command.pop("bandwidth", None)
    try:
        kind = RoundKind[command.pop("round").upper()]
        result = averager.run_round(kind, **{"branch": "", "weights": {}, **command})
    except RoundFailed as error:
        return {"failed": str(error)}
    return {
        "samples": result.samples_by_peer,
        "received": result.received_fraction,
        "complete": result.complete,
        "values": [buffer.tolist()[:1000] for buffer in buffers],
    }


def shown(tensor: torch.Tensor) -> list:
    """Its values; of a large tensor only those that differ."""
    return (tensor if tensor.numel() <= 1000 else tensor.unique()).tolist()


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
