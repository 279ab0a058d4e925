"""`peer` on a machine of which devices fail: a file says how many can still be used.

Stands in for the probe of devices alone; everything else is the real command. DEVICES_LEFT names the file.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from peer import cli
from peer.device_facts import DeviceFacts
from peer.node import supervisor
from swarm.errors import ArtelError

DEVICES_LEFT = "ARTEL_TEST_DEVICES_LEFT"


def probe_what_is_left(devices: Sequence[str], precision: str | None) -> list[DeviceFacts] | ArtelError:
    """Of so many devices, as the real probe would describe them; all of them without a file."""
    path = Path(os.environ[DEVICES_LEFT])
    left = int(path.read_text()) if path.exists() else len(devices)
    return supervisor.probe(devices[:left], precision)


def main() -> None:
    """The `peer` command."""
    # not from `__main__`: the probe runs in a process of its own
    from tests.scenarios.node_on_failing_devices import probe_what_is_left

    supervisor.run_node = functools.partial(supervisor.run_node, probe_devices=probe_what_is_left)
    cli.main()
