"""Several hosts on one machine: network namespaces whose links can be cut, and a bridge that can be split in two.

Needs Linux, root and iproute2; `Network.available()` says whether they are there. Everything is named after this
process and removed by `close`, also what an earlier process that was killed has left.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

PREFIX = "artel"
HOSTS = 250


class Network:
    """Hosts on two bridges that are joined by one link.

    >>> with contextlib.closing(Network(hosts=3)) as network:                            # doctest: +SKIP
    ...     subprocess.run([*network.on(1), "ping", "-c1", network.address(2)])

    :param hosts: even-numbered ones are on the first bridge, odd ones on the second
    """

    def __init__(self, hosts: int):
        if not 1 <= hosts <= HOSTS:
            raise ValueError(f"1 to {HOSTS} hosts, not {hosts}")
        _sweep()
        self.hosts = hosts
        self._number = next(n for n in itertools.count(os.getpid() % 200) if not _in_use(n % 250))
        self._number %= 250
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

    def address(self, host: int) -> str:
        """IPv4 address of a host.

        Of the range for benchmarks (RFC 2544): libp2p's look-up does not hand these out, so that peers find each other
        only if they tell each other themselves where they listen.
        """
        return f"198.18.{self._number}.{host + 1}"

    def on(self, host: int) -> list[str]:
        """What to put before a command to run it on a host."""
        return ["ip", "netns", "exec", self._namespace(host)]

    def cut(self, host: int) -> None:
        """Take a host's link down: nothing comes through, and nobody is told."""
        _ip("link", "set", self._link(host), "down")

    def mend(self, host: int) -> None:
        """And up again."""
        _ip("link", "set", self._link(host), "up")

    def split(self) -> None:
        """Cut the even hosts from the odd ones."""
        _ip("link", "set", f"{self._bridge(0)}x", "down")

    def heal(self) -> None:
        """Join the two halves again."""
        _ip("link", "set", f"{self._bridge(0)}x", "up")

    def close(self) -> None:
        """Remove namespaces, links and bridges."""
        for host in range(self.hosts):
            # with its namespace the link would go too, but only some time later: the next network may have its name
            _ip("link", "del", self._link(host), check=False)
            _ip("netns", "del", self._namespace(host), check=False)
        for side in (0, 1):
            _ip("link", "del", self._bridge(side), check=False)
        _ip("link", "del", f"{self._bridge(0)}x", check=False)

    def _build(self) -> None:
        for side in (0, 1):
            _ip("link", "add", self._bridge(side), "type", "bridge")
            _ip("link", "set", self._bridge(side), "alias", f"{PREFIX}-{os.getpid()}")
            _ip("link", "set", self._bridge(side), "up")
        ends = [f"{self._bridge(side)}x" for side in (0, 1)]
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for side, end in enumerate(ends):
            _ip("link", "set", end, "alias", f"{PREFIX}-{os.getpid()}")
            _ip("link", "set", end, "master", self._bridge(side))
            _ip("link", "set", end, "up")
        for host in range(self.hosts):
            self._add_host(host)

    def _add_host(self, host: int) -> None:
        namespace, link = self._namespace(host), self._link(host)
        _ip("netns", "add", namespace)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", link, "master", self._bridge(host % 2))
        _ip("link", "set", link, "up")
        inside = ("-n", namespace)
        _ip(*inside, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "link", "set", "lo", "up")

    def _namespace(self, host: int) -> str:
        return f"{PREFIX}-{os.getpid()}-{host}"

    def _link(self, host: int) -> str:
        return f"{PREFIX}{self._number}h{host}"

    def _bridge(self, side: int) -> str:
        return f"{PREFIX}{self._number}b{side}"


def _ip(*arguments: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _in_use(number: int) -> bool:
    return Path(f"/sys/class/net/{PREFIX}{number}b0").exists()


def _sweep() -> None:
    """Remove what processes that were killed have left; the links of a namespace go with it."""
    for namespace, pid in _namespaces():
        if not Path(f"/proc/{pid}").exists():
            _ip("netns", "del", namespace, check=False)
    for alias in Path("/sys/class/net").glob(f"{PREFIX}*/ifalias"):
        owner = alias.read_text().strip().removeprefix(f"{PREFIX}-")
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _ip("link", "del", alias.parent.name, check=False)


def _namespaces() -> Iterator[tuple[str, int]]:
    listing = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    for line in listing.splitlines():
        name = line.split()[0]
        parts = name.split("-")
        if len(parts) == 3 and parts[0] == PREFIX and parts[1].isdigit():
            yield name, int(parts[1])
