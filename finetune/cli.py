"""The `finetune` command: parse, call one function, print."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from data_prep.command_line import options_of_all_commands, quieten_the_hub, run_app
from data_prep.counted import counted
from finetune.errors import BadInput, OperationFailed

app = typer.Typer(
    name="finetune",
    help="Fine-tune and score an encoder on Russian tasks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_INTERRUPTED = "interrupted; a run goes on from its last checkpoint when the same command is given again"
Data = Annotated[str, typer.Option("--data-dir", help="The unpacked benchmark, or a data set's hub id.")]
Seeds = Annotated[int, typer.Option(min=1, help="How many seeds: 0, 1, …")]
Set = Annotated[list[str] | None, typer.Option("--set", help="key=value; may be repeated.")]
Trust = Annotated[bool, typer.Option(help="Run code that comes with a foreign model.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


app.callback()(options_of_all_commands)


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


@app.command()
def tasks(as_json: Json = False) -> None:
    """List the tasks, their metrics and the files each one reads."""
    from finetune.report_text import text_table
    from finetune.tasks import TASKS

    files = {name: {split: list(some) for split, some in t.layout.files.items()} for name, t in TASKS.items()}
    metrics = {name: list(task.metrics) for name, task in TASKS.items()}
    known = {name: {"metrics": metrics[name], "files": files[name]} for name in TASKS}
    rows = [
        (name, ", ".join(metrics[name]), "; ".join(some[0] for some in files[name].values()))
        for name in TASKS
    ]
    _print(known, as_json, text_table(("task", "metrics", "files"), rows))


@app.command()
def sweep(
    models: Annotated[
        list[str], typer.Option("--model", help="May be repeated: directories, ids, baselines.")
    ],
    tasks: Annotated[list[str], typer.Option("--task", help="May be repeated.")],
    data_dir: Annotated[
        list[str], typer.Option("--data-dir", help="May be repeated: the first with a task's files.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory: OUTPUT/MODEL/TASK a run.")],
    seeds: Seeds = 3,
    assignments: Set = None,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Run several models on several tasks; one that fails does not stop the others."""
    from finetune.report import build_report, report_cells
    from finetune.report_text import text_table
    from finetune.sweep import SweepRequest, run_sweep

    request = SweepRequest(models, tasks, data_dir, output, seeds, assignments or (), trust_remote_code)
    outcome = run_sweep(request)
    table = text_table(*report_cells(build_report(output))) if outcome.finished else ""
    _print(asdict(outcome), as_json, table)
    if outcome.failed:
        raise OperationFailed(f"{counted(len(outcome.failed), 'run')} failed: {', '.join(outcome.failed)}")


@app.command()
def report(
    runs: Annotated[Path, typer.Option(help="Directory with the outputs of runs, at any depth.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Directory for report.html, .json and .txt.")
    ] = None,
    as_json: Json = False,
) -> None:
    """One table of all runs, with deviations over seeds, beside baselines and published figures."""
    from finetune.report import build_report, report_cells
    from finetune.report_html import render_report
    from finetune.report_text import text_table
    from finetune.run_directory import write_json, write_text

    built = build_report(runs)
    text = f"{text_table(*report_cells(built))}\n{built.note}"
    if output is not None:
        write_text(output / "report.txt", text + "\n")
        write_json(output / "report.json", built.as_json())
        write_text(output / "report.html", render_report(built))
    _print(built.as_json(), as_json, text)


@app.command()
def submit(
    runs: Annotated[Path, typer.Option(help="Directory with one run of each task, at any depth.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The zip to write.")] = Path(
        "submission.zip"
    ),
    seed: Annotated[int | None, typer.Option(help="Default: each task's best on validation.")] = None,
    as_json: Json = False,
) -> None:
    """Write and check the files that the leaderboards take."""
    from finetune.submission import submit as write_submission

    submission = write_submission(runs, output, seed)
    for warning in submission.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    content = {name: value for name, value in asdict(submission).items() if name != "files"}
    lines = [
        f"{task}: {counted(count, 'item')}, seed {submission.seeds[task]}"
        for task, count in submission.items.items()
    ]
    _print(content | {"files": list(submission.files)}, as_json, "\n".join((*lines, f"written: {output}")))


@app.command()
def predict(
    file: Annotated[Path, typer.Argument(help="A text a line, or a CSV, TSV or JSONL file.")],
    model: Annotated[Path, typer.Option(help="seed-N/model of a run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON lines to write.")],
    text_field: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    second_field: Annotated[str | None, typer.Option(help="Column of a second text.")] = None,
    as_json: Json = False,
) -> None:
    """Classify texts with a fine-tuned model, at its operating point if it has one."""
    from finetune.predict import predict_file

    told = predict_file(model, file, output, text_field=text_field, second_field=second_field)
    positive = "" if told["positive"] is None else f", {told['positive']} at or above the threshold"
    _print(told, as_json, f"{counted(told['texts'], 'text')} in {output}{positive}")


@app.command()
def explain(
    model: Annotated[Path, typer.Option(help="seed-N/model of a run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML page to write.")],
    text: Annotated[str | None, typer.Option(help="One text.")] = None,
    second: Annotated[str | None, typer.Option(help="Its second text, for a model of pairs.")] = None,
    file: Annotated[Path | None, typer.Option(help="A text a line, or a CSV, TSV or JSONL file.")] = None,
    text_field: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    second_field: Annotated[str | None, typer.Option(help="Column of a second text.")] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Shade the words a classifier looked at, by attention and by gradients."""
    from finetune.explain import TextPair, explain_texts, read_texts
    from finetune.explain_html import render_explanations
    from finetune.run_directory import write_text

    if (text is None) == (file is None):
        raise BadInput("give either --text or --file")
    texts = read_texts(file, text_field, second_field) if file else [TextPair(str(text), second)]
    explanations = explain_texts(model, texts, trust_remote_code=trust_remote_code)
    write_text(output, render_explanations(explanations))
    print(f"{counted(len(explanations), 'text')} in {output}")


def _print(content: dict[str, Any], as_json: bool, text: str) -> None:
    print(json.dumps(content, ensure_ascii=False) if as_json else text)


def run_finetune(arguments: Sequence[str] | None = None) -> int:
    """The command with these words (None: this process's); returns the exit code."""
    return run_app(app, arguments, _quieten_libraries, _INTERRUPTED)


def _quieten_libraries(debug: bool) -> None:
    """Before they are imported: a wrong command line should not wait for them."""
    quieten_the_hub(debug)
    if not debug:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        warnings.filterwarnings("ignore", module="torch|transformers|accelerate|sklearn")


def main() -> None:
    """Entry point of the `finetune` command."""
    sys.exit(run_finetune())
