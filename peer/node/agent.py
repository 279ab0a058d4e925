"""torch's elastic agent as a library: starts one process per rank, watches them, and ends all when one fails.

Ranks are forked by Python's fork server, which has imported everything once and has no threads: sixteen ranks start in
the time of one, and again at once. The store they meet in listens on loopback only.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore, TCPStore
from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous.api import RendezvousHandler, RendezvousInfo, RendezvousStoreInfo

LOOPBACK = "127.0.0.1"
MONITOR_SECONDS = 0.25
STORE_TIMEOUT = timedelta(seconds=60)
POLITE_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class OneNode(RendezvousHandler):
    """A rendezvous of one: this node, whose agent holds the store."""

    def __init__(self) -> None:
        with socket.socket() as listener:
            listener.bind((LOOPBACK, 0))
            listener.listen(1024)
            self.port: int = listener.getsockname()[1]
            self.store = TCPStore(
                LOOPBACK,
                self.port,
                None,
                True,
                STORE_TIMEOUT,
                wait_for_workers=False,
                # without it the store would listen on every interface
                master_listen_fd=listener.detach(),
            )

    @property
    def use_agent_store(self) -> bool:
        return True

    def get_backend(self) -> str:
        return "one-node"

    def get_run_id(self) -> str:
        return "artel"

    def next_rendezvous(self) -> RendezvousInfo:
        store = PrefixStore("agent", self.store)
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo(LOOPBACK, self.port))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        """There is nobody to tell."""

    def num_nodes_waiting(self) -> int:
        return 0

    def shutdown(self) -> bool:
        return True


def start_fork_server(preload: str) -> None:
    """Start the process that forks ranks; call in the main thread, before signals are handled.

    :param preload: module that the ranks need
    """
    multiprocessing.set_forkserver_preload([preload])
    # its cleaner calls what ranks leave to it "leaked", which says nothing to a user; it inherits this
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in POLITE_SIGNALS}
    try:
        # it inherits what is ignored: a signal to the whole group must not end it before the ranks have left
        from multiprocessing.forkserver import ensure_running

        ensure_running()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def run_ranks(entrypoint: Callable[..., Any], args: tuple[Any, ...], ranks: int, node: OneNode) -> RunResult:
    """Run `entrypoint(*args)` in so many processes until all have returned, or one has failed and all have ended."""
    if os.environ.get("ARTEL_DEBUG") != "1":
        # pages about a rank that has ended, of which we say a line
        for name in ("torch.distributed.elastic.multiprocessing.api", "torch.multiprocessing.spawn"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    # else the agent's handlers would take the place of ours, and end the ranks instead of letting them leave
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGQUIT"
    with tempfile.TemporaryDirectory() as logs:
        spec = WorkerSpec(
            role="rank",
            local_world_size=ranks,
            rdzv_handler=node,
            entrypoint=entrypoint,
            args=args,
            max_restarts=0,
            monitor_interval=MONITOR_SECONDS,
        )
        agent = LocalElasticAgent(spec, DefaultLogsSpecs(log_dir=logs), start_method="forkserver")
        return agent.run()


def has_succeeded(result: RunResult) -> bool:
    """Whether every rank returned."""
    return result.state is WorkerState.SUCCEEDED


def why_it_failed(result: RunResult) -> str:
    """The rank that was first found to have ended, and how; a rank that wrote why it did has done so on stderr.

    >>> why_it_failed(RunResult(WorkerState.FAILED, failures={}))
    'a rank ended'
    """
    for number, failure in result.failures.items():
        if failure.exitcode < 0:
            return f"rank {number} was ended by {failure.signal_name()}"
        return f"rank {number} ended with code {failure.exitcode}"
    return "a rank ended"
