"""Ties the life of a child process to its parent's, so that `kill -9` of a peer leaves no orphan behind.

On Linux the kernel does it (PR_SET_PDEATHSIG: the child is killed when the thread that forked it ends, so children
must be forked by the main thread). Elsewhere a thread watches for the parent's id to change.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.5


def die_with_parent(parent: int) -> None:
    """Call in a freshly forked child, with the parent's pid: it is killed as soon as that parent is gone."""
    if sys.platform.startswith("linux"):
        set_parent_death_signal(parent)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()


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
