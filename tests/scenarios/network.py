"""Several hosts on one machine: network namespaces whose links can be cut, and a bridge that can be split in two.

Needs Linux, root and iproute2; `Network.available()` says whether they are there. Everything is named after this
process and removed by `close`, also what an earlier process that was killed has left.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.scenarios.delayed_links import TUN_DEVICE
from tests.scenarios.line_process import LineProcess

PREFIX = "artel"
HOSTS = 250
PACKET_BYTES = "16000"


class Network:
    """Hosts on two bridges that are joined by one link. One at a time in a process.

    The bridges have a namespace of their own, so that nothing changes on this machine's own network: a browser aborts
    what it is loading when that changes.

    >>> with contextlib.closing(Network(hosts=3)) as network:                            # doctest: +SKIP
    ...     subprocess.run([*network.on(1), "ping", "-c1", network.address(2)])

    :param hosts: even-numbered ones are on the first bridge, odd ones on the second
    :param subnet: of their addresses. By default of the range for benchmarks (RFC 2544): libp2p's look-up does not hand
        these out, so that peers find each other only if they tell each other themselves where they listen
    :param round_trip: seconds from one host to another and back; each link takes a quarter of it each way
    """

    def __init__(self, hosts: int, subnet: str = "198.18.0", round_trip: float = 0.0):
        if not 1 <= hosts <= HOSTS:
            raise ValueError(f"1 to {HOSTS} hosts, not {hosts}")
        _sweep()
        self.hosts, self._subnet, self._round_trip = hosts, subnet, round_trip
        self._delays: LineProcess | None = None
        self._switch = f"{PREFIX}-{os.getpid()}-switch"
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def available() -> bool:
        """Whether namespaces can be made here."""
        if shutil.which("ip") is None or os.geteuid() != 0:
            return False
        name = f"{PREFIX}try{os.getpid()}"
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
        if made:
            _ip("netns", "del", name)
        return made

    @staticmethod
    def can_delay() -> bool:
        """Whether `round_trip` can be asked for here, where namespaces can be made."""
        return os.access(TUN_DEVICE, os.R_OK | os.W_OK)

    def address(self, host: int) -> str:
        """IPv4 address of a host."""
        return f"{self._subnet}.{host + 1}"

    def on(self, host: int) -> list[str]:
        """What to put before a command to run it on a host."""
        return ["ip", "netns", "exec", self._namespace(host)]

    def cut(self, host: int) -> None:
        """Take a host's link down: nothing comes through, and nobody is told."""
        self._link("set", f"host{host}", "down")

    def mend(self, host: int) -> None:
        """And up again."""
        self._link("set", f"host{host}", "up")

    def shape(self, host: int, megabits: float) -> None:
        """Let a host send and receive at most so many megabits a second each.

        Its TCP then avoids congestion by cubic, as Linux does unless told otherwise: this machine may have been. What
        it sends are packets of 16 kB at most: those of 64 kB, which links without hardware let through, are dropped
        whole where links meet, and plain TCP fills three quarters of the links.
        """
        limit = ("root", "tbf", "rate", f"{megabits}mbit", "burst", "128kb", "latency", "200ms")
        _tc("-n", self._namespace(host), "qdisc", "replace", "dev", "eth0", *limit)
        _tc("-n", self._switch, "qdisc", "replace", "dev", f"host{host}", *limit)
        _ip("-n", self._namespace(host), "link", "set", "eth0", "gso_max_size", PACKET_BYTES)
        self._link("set", f"host{host}", "gso_max_size", PACKET_BYTES)
        route = (f"{self._subnet}.0/24", "dev", "eth0", "src", self.address(host), "congctl", "cubic")
        _ip("-n", self._namespace(host), "route", "replace", *route)

    def split(self) -> None:
        """Cut the even hosts from the odd ones."""
        self._link("set", "joint0", "down")

    def heal(self) -> None:
        """Join the two halves again."""
        self._link("set", "joint0", "up")

    def close(self) -> None:
        """Remove the namespaces, and with them all links and bridges."""
        if self._delays is not None:
            self._delays.kill_group()
        for host in range(self.hosts):
            _ip("netns", "del", self._namespace(host), check=False)
        _ip("netns", "del", self._switch, check=False)

    def _build(self) -> None:
        _ip("netns", "add", self._switch)
        for side in (0, 1):
            self._link("add", f"bridge{side}", "type", "bridge")
            self._link("set", f"bridge{side}", "up")
        self._link("add", "joint0", "type", "veth", "peer", "name", "joint1")
        for side in (0, 1):
            self._link("set", f"joint{side}", "master", f"bridge{side}")
            self._link("set", f"joint{side}", "up")
        if self._round_trip:
            there = ["ip", "netns", "exec", self._switch]
            arguments = (str(self.hosts), str(self._round_trip / 4))
            self._delays = LineProcess("tests.scenarios.delayed_links", *arguments, on=there)
            self._delays.hear()
        for host in range(self.hosts):
            self._add_host(host)

    def _add_host(self, host: int) -> None:
        namespace, link = self._namespace(host), f"host{host}"
        _ip("netns", "add", namespace)
        if self._round_trip:
            self._link("set", f"far{host}", "netns", namespace, "name", "eth0")
        else:
            self._link("add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        self._link("set", link, "master", f"bridge{host % 2}")
        self._link("set", link, "up")
        inside = ("-n", namespace)
        _ip(*inside, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "link", "set", "lo", "up")

    def _link(self, *arguments: str) -> None:
        _ip("-n", self._switch, "link", *arguments)

    def _namespace(self, host: int) -> str:
        return f"{PREFIX}-{os.getpid()}-{host}"


def _ip(*arguments: str, check: bool = True) -> None:
    _run("ip", *arguments, check=check)


def _tc(*arguments: str) -> None:
    _run("tc", *arguments, check=True)


def _run(*command: str, check: bool) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _sweep() -> None:
    """Remove what processes that were killed have left."""
    for namespace, pid in _namespaces():
        if not Path(f"/proc/{pid}").exists():
            _ip("netns", "del", namespace, check=False)


def _namespaces() -> Iterator[tuple[str, int]]:
    listing = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    for line in listing.splitlines():
        name = line.split()[0]
        parts = name.split("-")
        if len(parts) == 3 and parts[0] == PREFIX and parts[1].isdigit():
            yield name, int(parts[1])
