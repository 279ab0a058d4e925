"""Ties the life of a child process to its parent's, so that `kill -9` of a peer leaves no orphan behind, and a peer
whose child was killed does not wait for its answers for ever.

On Linux the kernel does it (PR_SET_PDEATHSIG: the child is killed when the thread that forked it ends, so children
must be forked by the main thread). Elsewhere a thread watches for the parent's id to change.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.5


def die_with_parent(parent: int) -> None:
    """Call in a freshly forked child, with the parent's pid: it is killed as soon as that parent is gone."""
    if sys.platform.startswith("linux"):
        set_parent_death_signal(parent)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()


class SharedFate:
    """Ends this process, with a line for people and exit code 1, when one of its own has died before `stop`.

    Nothing else would: whoever waits for an answer of a dead child waits for ever, or takes its silence for a swarm
    without anybody else.

    :param processes: by what people call them
    """

    def __init__(self, **processes: BaseProcess):
        self._names = {process.sentinel: name for name, process in processes.items()}
        self._processes = processes
        self._stopped, self._stop = multiprocessing.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._watch, name="shared fate", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Call before the processes are ended on purpose."""
        self._stop.send(None)  # a child forked meanwhile would keep a closed pipe open
        self._thread.join()

    def _watch(self) -> None:
        ready = multiprocessing.connection.wait([self._stopped, *self._names])
        if self._stopped in ready:
            return
        name = next(self._names[sentinel] for sentinel in ready if isinstance(sentinel, int))
        process = self._processes[name]
        process.join()
        code = process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        memory = ", perhaps because memory ran out" if code == -signal.SIGKILL else ""
        print(f"error: the process of our {name} {how}{memory}: start again", file=sys.stderr, flush=True)
        os._exit(1)


@contextmanager
def daemons_tied_to_us() -> Iterator[None]:
    """Programs that hivemind starts inside this context, in the main thread, die with this process.

    That is libp2p's daemon, to which hivemind passes no options. It obeys every polite signal, so it is also taken out
    of our process group: a signal to the group is for us.
    """
    # not `asyncio.create_subprocess_exec`, which is another name for it: this one is hivemind's
    original = asyncio.subprocess.create_subprocess_exec
    tie = functools.partial(_tie_daemon, os.getpid())
    asyncio.subprocess.create_subprocess_exec = functools.partial(original, preexec_fn=tie)
    try:
        yield
    finally:
        asyncio.subprocess.create_subprocess_exec = original


def _tie_daemon(parent: int) -> None:
    """Runs between fork and exec."""
    os.setpgid(0, 0)
    if sys.platform.startswith("linux"):
        set_parent_death_signal(parent)


def ignore_polite_signals() -> None:
    """Call in a freshly forked child: a signal to the whole group (Ctrl-C, a batch system's SIGTERM) is for the parent.

    The parent needs its children to leave politely; they end when it tells them, or with it.
    """
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)


def set_parent_death_signal(parent: int) -> None:
    """Linux only; safe between fork and exec, and kept over exec."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before the call
        os.kill(os.getpid(), signal.SIGKILL)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
