"""The `finetune` command: its sub-commands are not built yet, and say so."""

from __future__ import annotations

import sys

import typer

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Fine-tune and score a model on Russian tasks."
)


def _add_unbuilt(name: str) -> None:
    @app.command(name, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
    def unbuilt(_context: typer.Context) -> None:
        """Not built yet."""
        print(f"error: `finetune {name}` is not built yet", file=sys.stderr)
        raise typer.Exit(1)


for command in ("run", "submit", "report"):
    _add_unbuilt(command)


def main() -> None:
    """Entry point of the `finetune` command."""
    app()
