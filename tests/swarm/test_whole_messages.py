"""Messages to the DHT's process that do not fit into a pipe at once."""

from __future__ import annotations

import functools

from swarm.admission import Admission
from swarm.dht import open_dht
from swarm.identity import Identity


async def length_of(content: bytes, _dht, _node) -> int:
    return len(content)


def test_messages_larger_than_a_pipe_arrive_and_the_process_lives_on(tmp_path):
    path = tmp_path / "identity.key"
    Identity.generate().save(path)
    dht = open_dht(identity_path=path, admission=Admission("run", []))
    try:
        for size in (100, 20_000, 8_000_000, 100):
            asked = dht.run_coroutine(functools.partial(length_of, b"x" * size), return_future=True)
            assert asked.result(timeout=60) == size
        assert dht.is_alive()
    finally:
        dht.shutdown()
