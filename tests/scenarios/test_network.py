"""Hosts in network namespaces: the links that other tests and benchmarks rely on."""

from __future__ import annotations

import contextlib

import pytest

from tests.scenarios.line_process import LineProcess
from tests.scenarios.network import Network

ROUND_TRIP = 0.2
pytestmark = pytest.mark.skipif(
    not (Network.available() and Network.can_delay()), reason="needs root, iproute2 and /dev/net/tun"
)


def test_everything_arrives_over_links_with_a_round_trip_and_not_before_it_can() -> None:
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(contextlib.closing(Network(hosts=2, round_trip=ROUND_TRIP)))
        hosts = []
        for host in range(2):
            network.shape(host, megabits=1000)
            process = LineProcess("benchmarks.links.sockets", on=network.on(host))
            stack.callback(process.kill_group)
            process.tell(others=[network.address(1 - host)])
            assert process.hear() == {"ready": True}
            hosts.append(process)
        for process in hosts:
            process.tell(bytes=2**21)
        # one round trip to connect, half of one for the first byte
        assert min(process.hear()["seconds"] for process in hosts) >= 1.5 * ROUND_TRIP
