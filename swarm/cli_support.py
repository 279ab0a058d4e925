"""What the command lines share: errors become one line on stderr and an exit code, never a traceback.

`--debug` (or ARTEL_DEBUG=1) shows tracebacks and the libraries' own logs instead.
"""

from __future__ import annotations

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


def run_app(app: typer.Typer, arguments: Sequence[str] | None = None) -> None:
    """Run a typer app as a process of its own and exit with the right code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments or os.environ.get("ARTEL_DEBUG") == "1"
    arguments = [argument for argument in arguments if argument != "--debug"]
    configure_logging(debug)
    if debug:
        os.environ["ARTEL_DEBUG"] = "1"  # for processes of ours
        get_command(app)(arguments)
        return
    code = exit_code_of(lambda: get_command(app)(arguments, standalone_mode=False))
    sys.stdout.flush()
    sys.stderr.flush()
    # hivemind leaves threads and half-closed event loops behind that complain while the interpreter ends
    os._exit(code)


def exit_code_of(command: Callable[[], object]) -> int:
    """Run a command; print what a person should read about its failure; return the exit code."""
    try:
        outcome = command()
    except typer.Exit as error:
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except ArtelError as error:
        return _fail(str(error), error.exit_code)
    except DataError as error:
        return _fail(str(error), 2)
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), 1)
    except Exception as error:
        return _explain_usage(error) or _fail(f"{type(error).__name__}: {error} (--debug shows where)", 1)
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


def _explain_usage(error: Exception) -> int | None:
    """Exit code 2 for a wrong command line; recognised by its methods, for typer carries its own copy of click."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)  # type: ignore[attr-defined]
        return 2
    if hasattr(error, "format_message"):
        return _fail(error.format_message(), 2)
    return None


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code
