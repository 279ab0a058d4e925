"""What the command lines of the swarm's participants share: their logs, and an end that hivemind cannot hold up."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence

import typer

from data_prep import command_line
from data_prep.command_line import Tell

REPEAT_SECONDS = 60.0


class Repeats(logging.Filter):
    """Lets the same sentence through only every `seconds`: a full disk is met again every second."""

    def __init__(self, seconds: float = REPEAT_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds, self._clock = seconds, clock
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this is said."""
        now, sentence = self._clock(), record.getMessage()
        self._said = {said: at for said, at in self._said.items() if now - at < self._seconds}
        if sentence in self._said:
            return False
        self._said[sentence] = now
        return True


def run_app(app: typer.Typer, arguments: Sequence[str] | None = None, tell: Tell | None = None) -> None:
    """Run a typer app as a process of its own and exit with the right code.

    :param tell: called with what a person reads about a failure on stderr
    """
    code = command_line.run_app(app, arguments, configure_logging, tell=tell)
    sys.stdout.flush()
    sys.stderr.flush()
    # hivemind leaves threads and half-closed event loops behind that complain while the interpreter ends
    os._exit(code)


def configure_logging(debug: bool) -> None:
    """Our own messages on stderr; the libraries' only when asked for."""
    os.environ.setdefault("HIVEMIND_LOGLEVEL", "DEBUG" if debug else "CRITICAL")
    os.environ.setdefault("GRPC_VERBOSITY", "DEBUG" if debug else "NONE")
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(asctime)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    if not debug:
        for handler in logging.getLogger().handlers:
            handler.addFilter(Repeats())
        # "Loop … that handles pid … is closed": libp2p's daemon ended after the loop that started it, as it may
        logging.getLogger("asyncio").setLevel(logging.ERROR)
