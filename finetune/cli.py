"""The `finetune` command: parse, call one function, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="finetune",
    help="Fine-tune and score an encoder on Russian tasks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[str, typer.Option("--data-dir", help="The unpacked benchmark, or a data set's hub id.")]
Seeds = Annotated[int, typer.Option(min=1, help="How many seeds: 0, 1, …")]
Set = Annotated[list[str] | None, typer.Option("--set", help="key=value; may be repeated.")]
Trust = Annotated[bool, typer.Option(help="Run code that comes with a foreign model.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


@app.callback()
def _options(debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False) -> None:
    """Options of all commands; the entry point reads --debug."""


@app.command()
def run(
    task: Annotated[str, typer.Argument(help="RCB, PARus, …, RuCoLA, LiDiRus, ner, qa or classification.")],
    model: Annotated[str, typer.Option(help="Checkpoint directory, hub id, majority or tfidf.")],
    data_dir: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory; an interrupted run goes on.")],
    seeds: Seeds = 5,
    assignments: Set = None,
    first_stage_data: Annotated[
        str | None, typer.Option(help="A larger, noisier set to train on first, in the same layout.")
    ] = None,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a model on a task with several seeds, and measure it beside two baselines."""
    from finetune.commands import run_command
    from finetune.report_text import summary_table

    summary = run_command(
        task, model, data_dir, output, seeds, assignments or (), first_stage_data, trust_remote_code
    )
    _print(summary, as_json, summary_table(summary))


def _print(content: dict[str, Any], as_json: bool, text: str) -> None:
    print(json.dumps(content, ensure_ascii=False) if as_json else text)


def main() -> None:
    """Entry point of the `finetune` command."""
    from finetune.command_errors import run_app

    sys.exit(run_app(app))
