"""Addresses of first contact: what is wrong with one is said in words."""

from __future__ import annotations

import socket

import pytest

from swarm.addresses import (
    parse_address,
    require_port_free,
    require_reachable,
    require_valid_maddrs,
    split_addresses,
)
from swarm.errors import BadInput, OperationFailed

PEER_ID = "12D3KooWG9DaPB5sH3RFnT4Kht2wKYZVEvTrNupE56jrniD45v4H"


def address(port: int) -> str:
    return f"/ip4/127.0.0.1/tcp/{port}/p2p/{PEER_ID}"


@pytest.mark.parametrize(
    "text", ["", "hello", "127.0.0.1:31337", "/ip4/127.0.0.1/tcp/1", "/ip4/1.2.3.4/tcp/x/p2p/Qm", "/p2p/"]
)
def test_a_wrong_address_shows_the_right_form(text):
    with pytest.raises(BadInput, match=r"/ip4/HOST/tcp/PORT/p2p/PEER_ID|no address given"):
        split_addresses([text])


def test_several_addresses_in_any_form():
    texts = [address(1), address(2), address(3)]
    for given in ([" ".join(texts)], [",".join(texts)], texts):
        assert [item.text for item in split_addresses(given)] == texts
    assert parse_address(address(7)).tcp_port == 7


def test_a_dead_address_is_named_with_the_reason():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(OperationFailed, match=rf"tcp/{port}/p2p/\w+ \(Connection refused\)"):
        require_reachable([parse_address(address(port))])


def test_one_live_address_is_enough():
    with socket.create_server(("127.0.0.1", 0)) as server:
        live = parse_address(address(server.getsockname()[1]))
        assert require_reachable([parse_address(address(1)), live]) == [live]


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OperationFailed, match=f"port {port} .* --host-maddrs"):
            require_port_free([f"/ip4/127.0.0.1/tcp/{port}"])
    require_port_free([f"/ip4/127.0.0.1/tcp/{port}", "/ip4/127.0.0.1/tcp/0"])


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1:8", "/ip4/127.0.0.1/tcp/99999", "/ip4/127.0.0.1/tcp/x", "/dns/x/tcp/1"),
        *("/ip4/localhost/tcp/0", "/ip4/127.0.0.1", "", "/"),
    ],
)
def test_a_wrong_listening_address_is_bad_input(text):
    for check in (require_port_free, lambda texts: require_valid_maddrs(texts, [])):
        with pytest.raises(BadInput, match=r"expected e\.g\. \S+ for --host-maddrs"):
            check([text])


@pytest.mark.parametrize(
    ("text", "everywhere"),
    [("/ip4/203.0.113.7/tcp/0", "/ip4/0.0.0.0/tcp/0"), ("/ip6/2001:db8::7/tcp/0", "/ip6/::/tcp/0")],
)
def test_to_listen_on_the_address_of_a_router_is_told_what_to_do_instead(text, everywhere):
    host = text.split("/")[2]
    words = f"{host}, which is not an address of this machine: give --host-maddrs {everywhere}, and {host} to"
    with pytest.raises(BadInput, match=words):
        require_port_free([text])


@pytest.mark.parametrize(
    "text",
    [
        *("banana", "203.0.113.7:31337", "", "/", "/ip4/203.0.113.7", "/ip4/203.0.113.7/tcp/x"),
        *("/ip4/203.0.113.7/tcp/0", f"/ip4/203.0.113.7/tcp/31337/p2p/{PEER_ID}", "/ip4/otter/tcp/31337"),
    ],
)
def test_what_cannot_be_announced_is_bad_input(text):
    with pytest.raises(BadInput, match=r"is not an address to announce: expected e\.g\. /ip4/"):
        require_valid_maddrs(["/ip4/0.0.0.0/tcp/31337"], ["/ip4/203.0.113.7/tcp/31337", text])


def test_names_and_other_protocols_can_be_announced():
    addresses = ["/dns4/otter.example.org/tcp/31337", "/ip6/2001:db8::7/tcp/1", "/ip4/203.0.113.7/udp/1/quic"]
    require_valid_maddrs([], addresses)
