"""What the command lines share: errors become one line on stderr and an exit code, never a traceback.

`--debug` (or ARTEL_DEBUG=1) shows tracebacks and the libraries' own logs instead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence

import typer
from typer.main import get_command

from data_prep.errors import DataError
from swarm.errors import ArtelError

REPEAT_SECONDS = 60.0

Tell = Callable[[str], None]


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
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments or os.environ.get("ARTEL_DEBUG") == "1"
    arguments = [argument for argument in arguments if argument != "--debug"]
    configure_logging(debug)
    if debug:
        os.environ["ARTEL_DEBUG"] = "1"  # for processes of ours
        try:
            get_command(app)(arguments)
        except Exception as error:
            _tell(tell, _explain(error)[0])
            raise
        return
    code = exit_code_of(lambda: get_command(app)(arguments, standalone_mode=False), tell)
    sys.stdout.flush()
    sys.stderr.flush()
    # hivemind leaves threads and half-closed event loops behind that complain while the interpreter ends
    os._exit(code)


def exit_code_of(command: Callable[[], object], tell: Tell | None = None) -> int:
    """Run a command; print what a person should read about its failure, and tell it; return the exit code."""
    try:
        outcome = command()
    except typer.Exit as error:
        return error.exit_code
    except (Exception, KeyboardInterrupt) as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)  # type: ignore[union-attr]
            return 2
        message, code = _explain(error)
        print(f"error: {message}", file=sys.stderr)
        _tell(tell, message)
        return code
    return outcome if isinstance(outcome, int) else 0


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


def _tell(tell: Tell | None, message: str) -> None:
    if tell is not None:
        with contextlib.suppress(OSError):  # whoever was told may be gone, which may be the failure
            tell(message)


def _explain(error: BaseException) -> tuple[str, int]:
    """The one line that a person should read about a failure, and the exit code that goes with it."""
    words, code = _words_and_code(error)
    return " ".join(words.split()), code


def _words_and_code(error: BaseException) -> tuple[str, int]:
    if isinstance(error, (typer.Abort, KeyboardInterrupt)):
        return "interrupted", 130
    if isinstance(error, ArtelError):
        return str(error), error.exit_code
    if isinstance(error, DataError):
        return str(error), 2
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), 1
    # a wrong command line; recognised by its method, for typer carries its own copy of click
    if hasattr(error, "format_message"):
        return error.format_message(), 2
    return f"{type(error).__name__}: {error} (--debug shows where)", 1
