"""The ``data-prep`` command: parse, call one function, print."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from data_prep.errors import DataError

app = typer.Typer(
    name="data-prep",
    help="From raw Russian text to shards that peers can train on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
STEPS = ("import", "clean", "dedup", "tokenizer", "shard", "stats")


@app.callback()
def _options(context: typer.Context, debug: Debug = False) -> None:
    context.obj = {"debug": debug}


def _not_built(step: str) -> None:
    def command() -> None:
        print(f"data-prep {step} is not built yet", file=sys.stderr)
        raise typer.Exit(1)

    app.command(step, help="Not built yet.")(command)


for _step in STEPS:
    _not_built(_step)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: bad input gives one line on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app(args=arguments)
    except DataError as error:
        if "--debug" in arguments:
            raise
        print(f"data-prep: {error}", file=sys.stderr)
        sys.exit(2)
