"""What plain TCP takes for the bytes of an all-reduce: everybody sends everybody an equal share, all at once."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence

from benchmarks.links.stand_in import hear, say

PORT = 7077
CHUNK_BYTES = 2**18


def main() -> None:
    """Obey: listen, and whenever told so send the others their bytes and say how long it took until all had come."""
    setup = hear()
    with socket.create_server(("0.0.0.0", PORT), backlog=len(setup["others"])) as server:
        say(ready=True)
        while True:
            size = int(hear()["bytes"])
            say(seconds=_exchange(server, setup["others"], size // len(setup["others"])))


def _exchange(server: socket.socket, others: Sequence[str], share: int) -> float:
    began = time.monotonic()
    threads = [threading.Thread(target=_send, args=(other, share)) for other in others]
    threads += [threading.Thread(target=_receive, args=(server, share)) for _other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - began


def _send(address: str, size: int) -> None:
    with socket.create_connection((address, PORT)) as connection:
        connection.sendall(bytes(size))


def _receive(server: socket.socket, size: int) -> None:
    connection, _address = server.accept()
    with connection:
        while size:
            received = len(connection.recv(min(size, CHUNK_BYTES)))
            if not received:  # half an exchange is no measurement
                os._exit(1)
            size -= received


if __name__ == "__main__":
    main()
