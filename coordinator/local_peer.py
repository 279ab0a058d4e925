"""A peer on the coordinator's own machine, started and ended with it: `coordinator run SPEC --with-local-peer`.

It is an ordinary `peer join` in a process of its own. When the coordinator is told to stop, the peer leaves first and
the coordinator keeps its state; when the coordinator is killed, the peer dies with it (on Linux, by the kernel).
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from swarm.dht import TiedDHT
from swarm.errors import BadInput
from swarm.identity import Identity
from swarm.introductions import usable_addresses
from swarm.lifeline import set_parent_death_signal

START_PEER = "from peer.cli import main; main()"
# what `peer join` allows itself by default, and some time to end
LEAVING_SECONDS = 40.0

Say = Callable[[str], None]


def require_valid_options(options: Sequence[str]) -> None:
    """Have `peer join` look at options that are meant for it, and do no more; raises `BadInput` with its words."""
    somewhere = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"
    checked = subprocess.run(
        [sys.executable, "-c", START_PEER, "join", "--check-only", "--initial-peers", somewhere, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if checked.returncode:
        words = (checked.stderr.strip() or "it does not start").splitlines()[-1].removeprefix("error: ")
        raise BadInput(f"--local-peer-options {shlex.join(options)!r}: {words}")


class LocalPeer:
    """Runs `peer join` with these arguments and passes on what it prints.

    Start it in the main thread: its life hangs on that thread.

    :param invitation: token, where the run is by invitation

    >>> peer = LocalPeer(["--initial-peers", address], print)      # doctest: +SKIP
    >>> peer.end()                                                 # doctest: +SKIP
    """

    def __init__(self, arguments: Sequence[str], say: Say, invitation: str | None = None):
        self._say = say
        # a secret, which a command line would show to everybody on this machine
        ticket = {} if invitation is None else {"ARTEL_TICKET": invitation}
        tie = functools.partial(_tie, os.getpid())
        self._process = subprocess.Popen(
            [sys.executable, "-c", START_PEER, "join", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **ticket},
            preexec_fn=tie,
        )
        self._ending = False
        threading.Thread(target=self._pass_on, name="local-peer", daemon=True).start()

    def stop_after(self, told: threading.Event) -> threading.Event:
        """An event that is set when we were told to stop and the peer has left."""
        stop = threading.Event()

        def run() -> None:
            told.wait()
            self.end()
            stop.set()

        threading.Thread(target=run, name="local-peer-end", daemon=True).start()
        return stop

    def end(self) -> None:
        """Let the peer leave politely; kill it if that takes too long."""
        self._ending = True
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(LEAVING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _pass_on(self) -> None:
        for line in self._process.stdout or ():
            self._say(f"peer       {line.rstrip()}")
        code = self._process.wait()
        if code and not self._ending:
            self._say(f"the peer on this machine ended with code {code}; the coordinator goes on without it")


def _tie(parent: int) -> None:
    """Runs between fork and exec. A Ctrl-C is for the coordinator, which lets the peer leave."""
    os.setpgid(0, 0)
    if sys.platform == "linux":
        set_parent_death_signal(parent)


def join_arguments(
    dht: TiedDHT, host_maddrs: Sequence[str], fingerprint: str, options: Sequence[str]
) -> list[str]:
    """Of `peer join` on this machine: loopback first, for a public address may not be reachable from inside.

    :param options: more of them, as the user gave them
    """
    loopback = [
        f"/ip4/127.0.0.1/tcp/{parts[4]}/p2p/{dht.peer_id}"
        for parts in (address.split("/") for address in host_maddrs)
        if parts[3] == "tcp" and parts[4] != "0"
    ]
    visible = [str(address) for address in dht.get_visible_maddrs()]
    addresses = dict.fromkeys([*loopback, *visible, *usable_addresses(dht)])
    return ["--initial-peers", *addresses, "--run", fingerprint, *options]
