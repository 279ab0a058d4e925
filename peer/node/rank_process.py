"""What runs in the process of one rank, from the moment the supervisor's fork server has forked it.

It dies with the supervisor, and hears nothing of polite signals: those are for the supervisor, which passes the word
on. hivemind is started by the leader before anything of CUDA and before the ranks connect.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.distributed import PrefixStore, Store

from data_prep.errors import DataError
from peer.device_facts import DeviceFacts
from peer.join import Node, join_as_leader
from peer.node.exchange import open_group
from peer.node.family import Family, connect_store, listen_for_word
from peer.node.follower import follow
from peer.node.followers import Followers, NoFollowers
from peer.node.orders import Order, Orders, RanksLost
from peer.options import JoinOptions
from peer.reporting import make_reporter
from swarm.cli_support import configure_logging
from swarm.errors import ArtelError
from swarm.lifeline import die_with_parent, ignore_polite_signals
from swarm.process_limits import increase_file_limit

# of the grace period, for the supervisor to pass the word on and to see everybody end
PASSING_SECONDS = 0.5


@dataclass(frozen=True)
class Ending:
    """How a rank's part ended: `error` is empty, or what a person should read, with the exit code that goes with it."""

    error: str = ""
    exit_code: int = 0


def run_rank(options: JoinOptions, devices: Sequence[DeviceFacts], *, as_json: bool, debug: bool) -> Ending:
    """Be one rank until the peer has left; ends the process with code 1 if another rank was lost."""
    ignore_polite_signals()
    die_with_parent(os.getppid())
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and not supervisor.is_alive():
        os._exit(1)
    # what hivemind forks inherits its tensors and locks from us; the fork server is for ranks
    multiprocessing.set_start_method("fork", force=True)
    configure_logging(debug)
    increase_file_limit()
    rank, ranks = int(os.environ["RANK"]), len(devices)
    facts = devices[rank]
    share_processors(facts, ranks)
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = connect_store(host, port)
    family = Family(store, rank, ranks)
    orders = Orders(PrefixStore("orders", store), ranks)
    try:
        if rank == 0:
            return _lead(
                options,
                facts,
                [device.device for device in devices],
                family,
                orders,
                store,
                (host, port),
                as_json,
            )
        return _follow(options, facts, family, orders, store)
    except RanksLost as error:
        print(f"rank {rank}: {error}", file=sys.stderr, flush=True)
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(
            f"rank {rank}: {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr, flush=True
        )
    # not a return: the supervisor would wait for the return of those who are gone
    os._exit(1)


def share_processors(facts: DeviceFacts, ranks: int) -> None:
    """Ranks that compute on the CPU divide its cores, unless OMP_NUM_THREADS says how many each may take."""
    if facts.device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))


def _lead(
    options: JoinOptions,
    facts: DeviceFacts,
    devices: Sequence[str],
    family: Family,
    orders: Orders,
    store: Store,
    address: tuple[str, int],
    as_json: bool,
) -> Ending:
    def meet() -> None:
        open_group(store, torch.device(facts.device), family.rank, family.ranks)

    followers = Followers(orders, family, meet) if family.ranks > 1 else NoFollowers()
    reporter = make_reporter(as_json)
    options = replace(options, grace=max(options.grace - PASSING_SECONDS, options.grace / 2))
    try:
        join_as_leader(
            options,
            reporter,
            Node(facts, devices, followers, lambda tell: listen_for_word(*address, tell)),
        )
    except RanksLost:
        raise
    except (ArtelError, DataError) as error:
        family.part()
        orders.post(Order("end"))
        code = error.exit_code if isinstance(error, ArtelError) else 2
        return Ending(str(error), code)
    finally:
        reporter.close()
    return Ending()


def _follow(options: JoinOptions, facts: DeviceFacts, family: Family, orders: Orders, store: Store) -> Ending:
    setup = orders.await_setup()
    if setup is not None:
        meet = lambda: open_group(store, torch.device(facts.device), family.rank, family.ranks)  # noqa: E731
        follow(setup, options, facts, orders, family, meet)
    return Ending()
