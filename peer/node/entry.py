"""Where the process of a rank begins; the supervisor imports this and not what the ranks need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peer.device_facts import DeviceFacts
from peer.node.orders import Setup
from peer.options import JoinOptions


def enter_rank(options: JoinOptions, devices: Sequence[DeviceFacts], as_json: bool, debug: bool) -> Any:
    """See `peer.node.rank_process.run_rank`."""
    from peer.node.rank_process import run_rank

    return run_rank(options, devices, as_json=as_json, debug=debug)


def enter_measured_rank(
    options: JoinOptions,
    devices: Sequence[DeviceFacts],
    setup: Setup,
    accumulate: int,
    seconds: float,
    debug: bool,
) -> Any:
    """See `peer.node.measured_rank.run_measured_rank`."""
    from peer.node.measured_rank import run_measured_rank

    return run_measured_rank(options, devices, setup, accumulate, seconds, debug=debug)
