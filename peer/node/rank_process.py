"""What runs in the process of one rank, from the moment the supervisor's fork server has forked it.

It dies with the supervisor, and hears nothing of polite signals: those are for the supervisor, which passes the word
on. hivemind is started by the leader before anything of CUDA and before the ranks connect.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch.distributed import PrefixStore, Store

from data_prep.errors import DataError
from peer.device_facts import DeviceFacts
from peer.join import Node, join_as_leader
from peer.node.exchange import open_group
from peer.node.family import Family, connect_store, listen_for_word
from peer.node.follower import follow
from peer.node.followers import Followers, NoFollowers, OtherRanks
from peer.node.orders import Order, Orders, RanksLost
from peer.options import JoinOptions
from peer.reporting import make_reporter
from swarm.cli_support import configure_logging
from swarm.errors import ArtelError
from swarm.lifeline import die_with_parent, ignore_polite_signals
from swarm.process_limits import increase_file_limit

Result = TypeVar("Result")

# of the grace period, for the supervisor to pass the word on and to see everybody end
PASSING_SECONDS = 0.5


@dataclass(frozen=True)
class Ending:
    """How a rank's part ended: `error` is empty, or what a person should read, with the exit code that goes with it."""

    error: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class Rank:
    """One rank, with what ties it to the others.

    :param devices: of all ranks, by name
    :param address: host and port of the supervisor's store
    """

    facts: DeviceFacts
    devices: Sequence[str]
    family: Family
    orders: Orders
    store: Store
    address: tuple[str, int]

    def meet(self) -> None:
        """Connect all ranks; blocks until all have called."""
        open_group(self.store, torch.device(self.facts.device), self.family.rank, self.family.ranks)

    def followers(self) -> Followers:
        """The others, for the leader."""
        return OtherRanks(self.orders, self.family, self.meet) if self.family.ranks > 1 else NoFollowers()


def run_rank(options: JoinOptions, devices: Sequence[DeviceFacts], *, as_json: bool, debug: bool) -> Ending:
    """Be one rank until the peer has left; ends the process with code 1 if another rank was lost."""
    return be_rank(options, devices, lambda rank: _lead(options, rank, as_json), debug=debug) or Ending()


def be_rank(
    options: JoinOptions,
    devices: Sequence[DeviceFacts],
    lead: Callable[[Rank], Result],
    *,
    debug: bool,
    leaves_politely: bool = True,
) -> Result | None:
    """Be the rank that the environment says: the leader, who does `lead`, or a follower, who obeys and returns None.

    Whatever goes wrong is a line on stderr and the end of this process, with code 1.

    :param leaves_politely: False if there is nothing to hand over, and SIGTERM, as the agent sends it, may end it
    """
    if not debug:
        # torch's agent enables it; of a rank that a library aborts, the supervisor says a line
        faulthandler.disable()
    ignore_polite_signals()
    if not leaves_politely:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent(os.getppid())
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and not supervisor.is_alive():
        os._exit(1)
    # what hivemind forks inherits its tensors and locks from us; the fork server is for ranks
    multiprocessing.set_start_method("fork", force=True)
    configure_logging(debug)
    increase_file_limit()
    number = int(os.environ["RANK"])
    share_processors(devices[number], len(devices))
    try:
        rank = _enter(devices, number)
        if number == 0:
            return lead(rank)
        _follow(options, rank)
        return None
    except RanksLost as error:
        print(f"rank {number}: {error}", file=sys.stderr, flush=True)
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(
            f"rank {number}: {type(error).__name__}: {error} (--debug shows where)",
            file=sys.stderr,
            flush=True,
        )
    # not a return: the supervisor would wait for the return of those who are gone
    os._exit(1)


def share_processors(facts: DeviceFacts, ranks: int) -> None:
    """Ranks that compute on the CPU divide its cores, unless OMP_NUM_THREADS says how many each may take."""
    if facts.device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))


def _enter(devices: Sequence[DeviceFacts], number: int) -> Rank:
    ranks = len(devices)
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = connect_store(host, port)
    return Rank(
        devices[number],
        [device.device for device in devices],
        Family(store, number, ranks),
        Orders(PrefixStore("orders", store), ranks),
        store,
        (host, port),
    )


def _lead(options: JoinOptions, rank: Rank, as_json: bool) -> Ending:
    reporter = make_reporter(as_json)
    options = replace(options, grace=max(options.grace - PASSING_SECONDS, options.grace / 2))
    node = Node(rank.facts, rank.devices, rank.followers(), lambda tell: listen_for_word(*rank.address, tell))
    try:
        join_as_leader(options, reporter, node)
    except RanksLost:
        raise
    except (ArtelError, DataError) as error:
        rank.family.part()
        rank.orders.post(Order("end"))
        code = error.exit_code if isinstance(error, ArtelError) else 2
        return Ending(str(error), code)
    finally:
        reporter.close()
    return Ending()


def _follow(options: JoinOptions, rank: Rank) -> None:
    setup = rank.orders.await_setup()
    if setup is not None:
        follow(setup, options, rank.facts, rank.orders, rank.family, rank.meet)
