"""The ``data-prep`` command: parse, call one function, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data_prep.command_line import options_of_all_commands, quieten_the_hub, run_app
from data_prep.counted import counted
from data_prep.errors import DataError

app = typer.Typer(
    name="data-prep",
    help="From raw Russian text to shards that peers can train on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Corpus = Annotated[Path, typer.Argument(help="Corpus folder written by an earlier step.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write; must not exist or be empty.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


app.callback()(options_of_all_commands)


@app.command("import")
def import_(
    inputs: Annotated[
        list[str], typer.Argument(help="Files, folders, hf:DATASET_ID[@CONFIG][:SPLIT], or builtin.")
    ],
    output: Output,
    source: Annotated[
        str | None, typer.Option(help="Name of the source; default: the folder's name.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="Field that holds the text.")] = "text",
    id_field: Annotated[str, typer.Option(help="Field that holds the id.")] = "id",
    as_json: Json = False,
) -> None:
    """Read raw text: Wikipedia XML, JSON lines, Parquet, plain text, zip and tar archives, Hugging Face."""
    from data_prep.import_step import import_documents
    from data_prep.readers import Fields

    fields = Fields(text_field, id_field)
    summary = import_documents(inputs, output, source=source, fields=fields, progress=_say)
    lost = summary["damage"]["lost"]
    documents, places = counted(summary["documents"], "document"), counted(lost, "damaged place")
    _print(summary, as_json, f"{documents} in {output}; {places} skipped")
    for place in summary["damage"]["places"] if not as_json else ():
        _say(f"  {place['file']}, {place['position']}: {place['reason']}")


@app.command()
def clean(
    corpus: Corpus,
    output: Output,
    skip: Annotated[list[str] | None, typer.Option(help="Rule to leave out; may be repeated.")] = None,
    mask_contacts: Annotated[bool, typer.Option(help="Mask e-mail addresses and phone numbers.")] = False,
    as_json: Json = False,
) -> None:
    """Repair or refuse documents: Unicode, control characters, boilerplate, language, quality."""
    from data_prep.cleaning import clean_corpus

    summary = clean_corpus(corpus, output, skip=skip or (), request={"contacts"} if mask_contacts else ())
    _print(summary, as_json, f"{summary['documents']} of {summary['read']} documents in {output}")
    for name, count in summary["rules"].items() if not as_json else ():
        _say(f"  {name}: {count['removed']} removed, {count['changed']} changed")


@app.command()
def dedup(
    corpus: Corpus,
    output: Output,
    threshold: Annotated[float, typer.Option(help="Jaccard similarity of near-duplicates, 0.5 to 1.")] = 0.8,
    shingle_words: Annotated[int, typer.Option(help="Words in a shingle.")] = 5,
    near: Annotated[bool, typer.Option(help="Look for near-duplicates.")] = True,
    span_words: Annotated[int, typer.Option(help="Cut shared spans of so many words; 0: do not.")] = 50,
    as_json: Json = False,
) -> None:
    """Remove exact and near-duplicates, cut long spans that documents share."""
    from data_prep.dedup_step import DedupSettings, dedup_corpus
    from data_prep.near_duplicates import NearSettings

    settings = DedupSettings(NearSettings(threshold, shingle_words) if near else None, span_words)
    summary = dedup_corpus(corpus, output, settings, _say)
    told = (
        f"{summary['documents']} of {summary['read']} documents in {output}: {summary['exact']} exact and "
        f"{summary['near']} near-duplicates removed, {summary['words_cut']} shared words cut"
    )
    _print(summary, as_json, told)


@app.command()
def tokenizer(
    corpus: Corpus,
    output: Output,
    vocab_size: Annotated[int, typer.Option(min=1, help="Pieces; rounded up to a multiple of 64.")] = 50_048,
    algorithm: Annotated[str, typer.Option(help="unigram or bpe.")] = "unigram",
    as_json: Json = False,
) -> None:
    """Train a Unigram or BPE tokenizer and measure it on held-out text."""
    from data_prep.tokenizer_step import train_on_corpus
    from data_prep.train_tokenizer import ALGORITHMS

    chosen = next((known for known in ALGORITHMS if known == algorithm), None)
    if chosen is None:
        raise DataError(f"--algorithm {algorithm}: there are {' and '.join(ALGORITHMS)}")
    report = train_on_corpus(corpus, output, vocab_size, algorithm=chosen, progress=_say)
    told = f"{report.vocab_size} pieces in {output}; {report.fertility} pieces a word on held-out text"
    _print(report.as_json(), as_json, told)


@app.command()
def shard(
    corpus: Corpus,
    output: Output,
    tokenizer: Annotated[Path, typer.Option(help="Folder written by data-prep tokenizer.")],
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")] = None,
    heldout_fraction: Annotated[
        float, typer.Option(help="Share of the documents that is held out to measure the model on.")
    ] = 0.002,
    heldout_rows: Annotated[int, typer.Option(help="Rows of the held-out set.")] = 256,
    sequence_length: Annotated[int, typer.Option(help="Tokens in a row of the held-out set.")] = 512,
    as_json: Json = False,
) -> None:
    """Tokenize once into shards of ids and a held-out set: a folder that a run can be started from."""
    from data_prep.shard_step import HeldoutSettings, shard_corpus

    heldout = HeldoutSettings(heldout_fraction, heldout_rows, sequence_length)

    with _progress_bar() as bar:
        task = bar.add_task("tokenizing", total=None)
        manifest = shard_corpus(
            corpus,
            tokenizer,
            output,
            heldout=heldout,
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    counts = f"{manifest.tokens} tokens of {counted(manifest.documents, 'document')}"
    told = f"{counts} in {counted(len(manifest.shards), 'shard')} in {output}"
    _print(json.loads(manifest.to_json()), as_json, told)


@app.command()
def cluster(
    corpus: Corpus,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; may be unfinished.")],
    tokenizer: Annotated[Path, typer.Option(help="Folder written by data-prep tokenizer.")],
    executor: Annotated[str, typer.Option(help="local, slurm or ray.")] = "local",
    tasks: Annotated[int, typer.Option(min=1, help="Tasks; no more than part files.")] = 1,
    workers: Annotated[int, typer.Option(help="Tasks at once; -1: all.")] = -1,
    partition: Annotated[str | None, typer.Option(help="Slurm partition.")] = None,
    time: Annotated[str, typer.Option(help="Slurm time limit of a task.")] = "24:00:00",
    skip: Annotated[list[str] | None, typer.Option(help="Cleaning rule to leave out.")] = None,
    mask_contacts: Annotated[bool, typer.Option(help="Mask e-mail addresses and phone numbers.")] = False,
    heldout_fraction: Annotated[float, typer.Option(help="Share of the documents held out.")] = 0.0001,
    heldout_rows: Annotated[int, typer.Option(help="Rows of the held-out set.")] = 2048,
    sequence_length: Annotated[int, typer.Option(help="Tokens in a row of the held-out set.")] = 512,
    as_json: Json = False,
) -> None:
    """Clean, deduplicate and shard on many machines, by datatrove: local, Slurm or Ray."""
    from data_prep.cluster import ClusterSettings, run_on_cluster
    from data_prep.shard_step import HeldoutSettings

    settings = ClusterSettings(
        executor=executor,
        tasks=tasks,
        workers=workers,
        partition=partition,
        time=time,
        skip=skip or (),
        request={"contacts"} if mask_contacts else (),
        heldout=HeldoutSettings(heldout_fraction, heldout_rows, sequence_length),
    )
    manifest = run_on_cluster(corpus, output, tokenizer, settings)
    if manifest is None:
        _print(
            {"submitted": True}, as_json, f"submitted; {output} is finished when it has shards/manifest.json"
        )
    else:
        told = f"{manifest.tokens} tokens of {counted(manifest.documents, 'document')} in {output}"
        _print(json.loads(manifest.to_json()), as_json, told)


@app.command()
def stats(
    corpus: Corpus,
    output: Output,
    history: Annotated[
        list[Path] | None, typer.Option(help="Folder of an earlier step; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a report as HTML and JSON: sources, documents, words, lengths, what was removed."""
    from data_prep.stats import corpus_stats, write_report

    content = corpus_stats(corpus, history or ())
    page = write_report(content, output)
    totals = content["totals"]
    _print(content, as_json, f"{counted(totals['documents'], 'document')}, {totals['words']} words: {page}")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _print(content: dict[str, Any], as_json: bool, sentence: str) -> None:
    print(json.dumps(content, ensure_ascii=False) if as_json else sentence)


def _progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `data-prep` command."""
    sys.exit(run_app(app, arguments, quieten_the_hub))
