"""The process that the user started, when a node has several ranks: starts them, watches them, starts them again.

It computes nothing and speaks to nobody. A rank that ends unexpectedly takes the others down: the leader hands over
what it has, and all start again from the swarm's state, on the devices that still answer. When the supervisor is told
to go, the leader leaves the swarm within the grace period; when it is killed, everything below it dies.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from peer.device_facts import DeviceFacts
from peer.forked_call import in_a_fork
from peer.grace import Grace, end_at_once_when_told
from peer.node.agent import OneNode, has_succeeded, run_ranks, start_fork_server, why_it_failed
from peer.node.devices import probe
from peer.node.entry import enter_rank
from peer.node.family import JOINED, TOLD, connect_store
from peer.node.scratch import scratch_folder
from peer.options import JoinOptions
from swarm.errors import ArtelError, BadInput, OperationFailed

FORK_SERVER_MODULE = "peer.node.fork_server"
PROBE_SECONDS = 120.0
# so many lives in a row that ended soon after their beginning, and we give up
MAX_SHORT_LIVES = 5
SHORT_LIFE_SECONDS = 600.0
LONGEST_PAUSE_SECONDS = 60.0

Probe = Callable[[Sequence[str], "str | None"], "list[DeviceFacts] | ArtelError"]


def run_node(
    options: JoinOptions,
    devices: Sequence[str],
    *,
    as_json: bool,
    debug: bool = False,
    probe_devices: Probe = probe,
) -> None:
    """Take part in a run with one rank per device, until it is finished or we are told to stop.

    :param devices: their names, one for each rank
    :param probe_devices: tells which of them can be used
    :raises ArtelError: with words for the user
    """
    end_at_once_when_told()
    with scratch_folder():
        _supervise(options, devices, probe_devices, as_json=as_json, debug=debug)


def _supervise(
    options: JoinOptions, devices: Sequence[str], probe_devices: Probe, *, as_json: bool, debug: bool
) -> None:
    start_fork_server(FORK_SERVER_MODULE)
    grace = Grace(options.grace)
    grace.start()
    short_lives = 0
    while True:
        ready = _usable(devices, options, probe_devices)
        if len(ready) < len(devices):
            _say(as_json, f"only {len(ready)} of {len(devices)} devices can be used")
        started = time.monotonic()
        why = _live(options, ready, grace, as_json=as_json, debug=debug)
        if why is None:
            return
        short_lives = short_lives + 1 if time.monotonic() - started < SHORT_LIFE_SECONDS else 1
        if short_lives > MAX_SHORT_LIVES:
            raise OperationFailed(
                f"a rank ended {short_lives} times soon after its start ({why}); --debug shows more"
            )
        pause = min(LONGEST_PAUSE_SECONDS, 2.0 ** (short_lives - 1))
        if grace.requested.is_set():
            return
        _say(as_json, f"a rank has ended unexpectedly ({why}): starting again in {pause:.0f} s")
        if grace.requested.wait(pause):
            return


def _usable(devices: Sequence[str], options: JoinOptions, probe_devices: Probe) -> list[DeviceFacts]:
    try:
        with in_a_fork(probe_devices, list(devices), options.precision, seconds=PROBE_SECONDS) as ready:
            if isinstance(ready, ArtelError):
                raise ready
            if ready:
                return list(ready)
    except (TimeoutError, EOFError):
        pass
    raise OperationFailed(f"none of {', '.join(devices)} can be used: see `peer doctor`")


def _live(
    options: JoinOptions, devices: Sequence[DeviceFacts], grace: Grace, *, as_json: bool, debug: bool
) -> str | None:
    """One life of all ranks; says in words why a rank ended, if one did. Raises what the leader raised."""
    node = OneNode()
    over = threading.Event()
    word = threading.Thread(target=_pass_on, args=(node.port, grace, over), name="word", daemon=True)
    word.start()
    try:
        result = run_ranks(enter_rank, (options, list(devices), as_json, debug), len(devices), node)
    finally:
        over.set()
    if not has_succeeded(result):
        return why_it_failed(result)
    ending = result.return_values[0]
    if ending.error:
        raise (BadInput if ending.exit_code == BadInput.exit_code else OperationFailed)(ending.error)
    return None


def _pass_on(port: int, grace: Grace, over: threading.Event) -> None:
    """Tell the leader to go as soon as we are told; if it has not joined yet, there is nothing to lose."""
    while not grace.requested.wait(0.1):
        if over.is_set():
            return
    store = connect_store("127.0.0.1", port)
    if not store.check([JOINED]):
        os._exit(0)
    store.set(TOLD, grace.reason)


def _say(as_json: bool, text: str) -> None:
    # what reporting imports takes seconds that a supervisor rarely needs
    from peer.reporting import JsonReporter, Reporter

    (JsonReporter() if as_json else Reporter()).message(text)
