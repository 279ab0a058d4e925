"""Made-up statuses for the tests of history and dashboard."""

from coordinator.status import PeerState, PeerStatus, RunStatus

T0 = 1_767_225_600.0  # 2026-01-01 00:00 UTC: whole minutes, hours and days


def peer(number: int, state: PeerState = "training", samples: int = 0, **more: object) -> PeerStatus:
    """Peer `number` with a stable id and name."""
    fields: dict = {
        "peer_id": f"12D3KooW{number:05d}",
        "name": f"otter-{number}",
        "state": state,
        "device": "cpu",
        "samples_per_second": 10.0,
        "samples_contributed": samples,
    }
    return PeerStatus(**{**fields, **more})


def run_status(*peers: PeerStatus, **more: object) -> RunStatus:
    """A run with these peers."""
    fields: dict = {
        "run_id": "test",
        "state": "training",
        "target_batch_size": 64,
        "peers_online": sum(p.state != "lost" for p in peers),
        "samples_per_second": sum(p.samples_per_second for p in peers),
        "peers": list(peers),
        "join_line": "peer join --initial-peers /ip4/127.0.0.1/tcp/31337/p2p/12D3KooWtest",
    }
    return RunStatus(**{**fields, **more})
