"""Addresses of first contact: parsing, and finding out in words why one does not answer.

libp2p's own answer to a dead address is a daemon that exits; so every address is tried by plain TCP first.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from hivemind.p2p import PeerID
from hivemind.utils.multiaddr import Multiaddr

from swarm.errors import BadInput, OperationFailed

CONNECT_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Address:
    """One multiaddress of a participant, as printed in the `peer join` line."""

    text: str
    host: str
    tcp_port: int | None
    peer_id: str


def parse_address(text: str) -> Address:
    """Parse `/ip4/HOST/tcp/PORT/p2p/PEER_ID`; raises `BadInput` that shows the expected form."""
    try:
        parsed = Multiaddr(text)
        peer_id = PeerID.from_base58(parsed["p2p"]).to_base58()
    except Exception as error:  # hivemind's parser raises a different type for every kind of mistake
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(
            f"{text!r} is not an address of a participant ({reason}): "
            "expected /ip4/HOST/tcp/PORT/p2p/PEER_ID as printed by `coordinator run`"
        ) from None
    parts = text.split("/")
    host = parts[2] if len(parts) > 2 else ""
    port = int(parts[parts.index("tcp") + 1]) if "tcp" in parts else None
    return Address(text, host, port, peer_id)


def split_addresses(values: Sequence[str]) -> list[Address]:
    """Addresses given as separate words, by commas, or both; raises `BadInput` if there is none."""
    texts = [text for value in values for text in value.replace(",", " ").split()]
    if not texts:
        raise BadInput("no address given: pass --initial-peers ADDRESS as printed by `coordinator run`")
    return [parse_address(text) for text in texts]


def require_reachable(addresses: Sequence[Address]) -> list[Address]:
    """The addresses that accept a TCP connection (and those that cannot be tried so); raises if none does."""
    failures = []
    reachable = []
    for address in addresses:
        reason = why_unreachable(address)
        if reason is None:
            reachable.append(address)
        else:
            failures.append(f"{address.text} ({reason})")
    if not reachable:
        raise OperationFailed(
            f"cannot reach {'; '.join(failures)}: check that the coordinator runs, that the address is its current "
            "one, and that its port is open"
        )
    return reachable


def why_unreachable(address: Address) -> str | None:
    """Why no TCP connection to an address can be made; None if it can, or if it is not a TCP address."""
    if address.tcp_port is None:
        return None
    try:
        socket.create_connection((address.host, address.tcp_port), CONNECT_TIMEOUT_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def require_valid_maddrs(host_maddrs: Sequence[str], announce_maddrs: Sequence[str]) -> None:
    """Raise `BadInput` for what cannot be listened on, or announced; hivemind's DHT would never start, nor say why."""
    for text in host_maddrs:
        _parse_host_maddr(text)
    for text in announce_maddrs:
        _require_announceable(text)


def require_port_free(host_maddrs: Sequence[str]) -> None:
    """See that we can listen where we were told to.

    :raises BadInput: an address is malformed, or not of this machine
    :raises OperationFailed: something already listens on a TCP port
    """
    for text in host_maddrs:
        host, protocol, port = _parse_host_maddr(text)
        if protocol == "tcp":
            _try_to_bind(host, port)


def _parse_host_maddr(text: str) -> tuple[str, str, int]:
    """Host, protocol and port of an address to listen on."""
    parts = text.split("/")
    if _protocols(text)[:2] not in (["ip4", "tcp"], ["ip6", "tcp"], ["ip4", "udp"], ["ip6", "udp"]):
        raise BadInput(
            f"{text!r} is not an address to listen on: expected e.g. /ip4/0.0.0.0/tcp/31337 for --host-maddrs"
        )
    return parts[2], parts[3], int(parts[4])


def _require_announceable(text: str) -> None:
    protocols = _protocols(text)
    # our peer id is appended to it in the join line
    if protocols[1:2] not in (["tcp"], ["udp"]) or "p2p" in protocols or text.split("/")[4] == "0":
        raise BadInput(
            f"{text!r} is not an address to announce: expected e.g. /ip4/203.0.113.7/tcp/31337, without a peer id, "
            "for --announce-maddrs"
        )


def _protocols(text: str) -> list[str]:
    """Names of the protocols in a multiaddress; none if it is not one."""
    try:
        return [protocol.name for protocol in Multiaddr(text).protocols()]
    except Exception:  # hivemind's parser raises a different type for every kind of mistake
        return []


def _try_to_bind(host: str, port: int) -> None:
    protocol, family = ("ip6", socket.AF_INET6) if ":" in host else ("ip4", socket.AF_INET)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                everywhere = f"/{protocol}/{'::' if protocol == 'ip6' else '0.0.0.0'}/tcp/{port}"
                raise BadInput(
                    f"cannot listen on {host}, which is not an address of this machine: "
                    f"give --host-maddrs {everywhere}, and {host} to --announce-maddrs"
                ) from None
            raise OperationFailed(
                f"cannot listen on {host} port {port} ({error.strerror}): stop the program that uses it, "
                "or choose another port with --host-maddrs"
            ) from None
