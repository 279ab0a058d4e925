"""What the command lines share: a failure becomes one line on stderr and an exit code, never a traceback.

Bad input ends with 2, a failed operation with 1, Ctrl-C with 130. `--debug` anywhere on the command line (or
ARTEL_DEBUG=1) shows the traceback and the libraries' own messages instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from typer.main import get_command

from data_prep.errors import PlainError

Tell = Callable[[str], None]

DEBUG = "--debug"
INTERRUPTED_CODE = 130

Debug = Annotated[
    bool, typer.Option(DEBUG, help="Show tracebacks and the libraries' messages; may stand anywhere.")
]


def options_of_all_commands(debug: Debug = False) -> None:
    """The callback of every program: it only lists --debug in the help, for `run_app` takes it out."""


def run_app(
    app: typer.Typer,
    arguments: Sequence[str] | None,
    set_up: Callable[[bool], None],
    interrupted: str = "interrupted",
    tell: Tell | None = None,
) -> int:
    """Run a typer app on a command line (None: this process's); returns the exit code.

    :param set_up: told whether errors are looked for, before the command begins
    :param interrupted: what a person reads after Ctrl-C
    :param tell: called with what a person reads about a failure on stderr
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG in words or os.environ.get("ARTEL_DEBUG") == "1"
    if debug:
        os.environ["ARTEL_DEBUG"] = "1"  # for processes of ours
    set_up(debug)
    words = [word for word in words if word != DEBUG]
    return exit_code_of(lambda: get_command(app)(words, standalone_mode=False), interrupted, debug, tell)


def exit_code_of(
    command: Callable[[], object],
    interrupted: str = "interrupted",
    debug: bool = False,
    tell: Tell | None = None,
) -> int:
    """Run a command; print what a person should read about its failure, and tell it; return the exit code.

    With `debug` what is not a wrong command line is told, and raised.
    """
    try:
        outcome = command()
    except (typer.Abort, KeyboardInterrupt):
        return _fail(interrupted, INTERRUPTED_CODE, tell)
    except typer.Exit as error:
        return error.exit_code
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)  # type: ignore[attr-defined]
            return 2
        words, code = _explain(error)
        if debug and not _is_wrong_usage(error):
            _tell(tell, words)
            raise
        return _fail(words, code, tell)
    if outcome == INTERRUPTED_CODE:  # typer turns Ctrl-C into this number before anyone else sees it
        return _fail(interrupted, INTERRUPTED_CODE, tell)
    return outcome if isinstance(outcome, int) else 0


def quieten_the_hub(debug: bool) -> None:
    """No line for every time the Hugging Face hub is tried again; before its client is imported, which reads this."""
    if not debug:
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")


def _is_wrong_usage(error: Exception) -> bool:
    """A wrong command line; recognised by its methods, for typer carries its own copy of click."""
    return hasattr(error, "format_message")


def _explain(error: Exception) -> tuple[str, int]:
    """What a person should read about a failure, and the exit code that goes with it."""
    if _is_wrong_usage(error):
        message: str = error.format_message()  # type: ignore[attr-defined]
        return message.replace("Value error, ", ""), 2  # typer checks values by pydantic
    if isinstance(error, PlainError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        return _in_words(error), 1
    return f"{type(error).__name__}: {error} (--debug shows where)", 1


def _in_words(error: OSError) -> str:
    place = f": {error.filename}" if error.filename else ""
    # not every library keeps the number
    if error.errno == errno.ENOSPC or "No space left" in str(error):
        return f"the disk is full{place}: make room and run the same command again"
    return f"{error.strerror or error}{place}"


def _fail(words: str, code: int, tell: Tell | None) -> int:
    print(f"error: {_one_line(words)}", file=sys.stderr)
    _tell(tell, words)
    return code


def _tell(tell: Tell | None, words: str) -> None:
    if tell is not None:
        with contextlib.suppress(OSError):  # whoever was told may be gone, which may be the failure
            tell(_one_line(words))


def _one_line(words: str) -> str:
    return " ".join(words.split())
