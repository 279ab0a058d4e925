"""HOST:PORT as given on a command line, and listening there."""

from __future__ import annotations

import socket

from swarm.errors import BadInput


def parse_host_port(text: str, option: str = "--dashboard") -> tuple[str, int]:
    """Split HOST:PORT (an IPv6 host in brackets); raises `BadInput`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise BadInput(f"{text!r} is not HOST:PORT: give e.g. {option} 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises `OSError`."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    # Named TCP: asyncio turns off Nagle's delay only for sockets that say so.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except OSError:
        bound.close()
        raise
    return bound
