"""HOST:PORT as given on a command line."""

from __future__ import annotations

from swarm.errors import BadInput


def parse_host_port(text: str, option: str = "--dashboard") -> tuple[str, int]:
    """Split HOST:PORT (an IPv6 host in brackets); raises `BadInput`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise BadInput(f"{text!r} is not HOST:PORT: give e.g. {option} 127.0.0.1:8080")
    return host.strip("[]"), int(port)
