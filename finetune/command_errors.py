"""From exceptions to one line on stderr and an exit code: the only place where the command does so.

Bad input ends with 2, a failed operation with 1, Ctrl-C with 130. Nobody sees a traceback without --debug.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence

import typer
from typer.main import get_command

from finetune.errors import FinetuneError

INTERRUPTED_CODE = 130
_INTERRUPTED = "interrupted; a run goes on from its last checkpoint when the same command is given again"


def run_app(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Run a typer app on a command line; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments or os.environ.get("ARTEL_DEBUG") == "1"
    words = [argument for argument in arguments if argument != "--debug"]
    if debug:
        outcome = get_command(app)(words, standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    _quieten_libraries()
    return exit_code_of(lambda: get_command(app)(words, standalone_mode=False))


def exit_code_of(command: Callable[[], object]) -> int:
    """Run a command; print what a person should read about its failure; return the exit code."""
    try:
        outcome = command()
    except (typer.Abort, KeyboardInterrupt):
        return _fail(_INTERRUPTED, INTERRUPTED_CODE)
    except typer.Exit as error:
        return error.exit_code
    except FinetuneError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), 1)
    except Exception as error:
        return _usage(error) or _fail(f"{type(error).__name__}: {error} (--debug shows where)", 1)
    if outcome == INTERRUPTED_CODE:  # typer turns Ctrl-C into this number before anyone else sees it
        return _fail(_INTERRUPTED, INTERRUPTED_CODE)
    return outcome if isinstance(outcome, int) else 0


def _quieten_libraries() -> None:
    """Before they are imported: a wrong command line should not wait for them."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", module="torch|transformers|accelerate|sklearn")


def _usage(error: Exception) -> int | None:
    """2 for a wrong command line; recognised by its methods, for typer carries its own copy of click."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)  # type: ignore[attr-defined]
        return 2
    if hasattr(error, "format_message"):
        return _fail(error.format_message(), 2)
    return None


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code
