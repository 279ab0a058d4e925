"""The pipe to one of hivemind's processes, of which a message is read whole, however large it is.

hivemind 1.1.12 waits for it in uvloop, which makes a pipe that it watches non-blocking. A message of more than 16 KiB,
such as the address book of a hundred peers, is written in pieces; read in between, it is torn, and what follows is
garbage that ends the process.
"""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from typing import Any


class WholeMessages:
    """The reading end of a pipe, to be put in its place in the process that reads.

    Waits for the rest of a message that has begun; its writer is our own parent, with whom this process dies.
    """

    def __init__(self, connection: Connection):
        self._connection = connection

    def recv(self) -> Any:
        """The next message; blocks until it is there."""
        os.set_blocking(self._connection.fileno(), True)
        return self._connection.recv()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
