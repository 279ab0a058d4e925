"""Sub-commands of `coordinator` that work on checkpoints on disk: parse, call, print."""

from __future__ import annotations

import json as json_module
import math
from pathlib import Path
from typing import Annotated

import typer

from coordinator.control_commands import AsJson, RunDir

Chosen = Annotated[
    str, typer.Option("--checkpoint", help="latest, best (by held-out loss), or a global step.")
]


def export(
    directory: Annotated[Path, typer.Argument(help="Directory to write; must be empty or not there yet.")],
    run_dir: RunDir = None,
    checkpoint: Chosen = "latest",
    with_optimizer: Annotated[
        bool, typer.Option(help="Everything, so that --resume-from can go on from it as well.")
    ] = False,
) -> None:
    """Write the directory to publish: weights, model code, tokenizer, model card."""
    from coordinator.export import choose_checkpoint, export_checkpoint
    from coordinator.run_directory import RunDirectory, find_run_directory

    chosen = choose_checkpoint(RunDirectory(find_run_directory(run_dir)).checkpoints_path, checkpoint)
    export_checkpoint(chosen, directory, with_optimizer=with_optimizer)
    print(f"step {chosen.step} exported to {directory}")


def evaluate(
    run_dir: RunDir = None,
    checkpoint: Chosen = "latest",
    pseudo_perplexity: Annotated[
        bool, typer.Option(help="Mask every token by itself: as many forward passes as tokens.")
    ] = False,
    rows: Annotated[int, typer.Option(min=1, help="Held-out rows for the pseudo-perplexity.")] = 32,
    json: AsJson = False,
) -> None:
    """Score a checkpoint on the run's held-out set again."""
    from coordinator.evaluate import evaluate_checkpoint
    from coordinator.run_directory import find_run_directory

    found = evaluate_checkpoint(find_run_directory(run_dir), checkpoint, rows if pseudo_perplexity else 0)
    if json:
        print(json_module.dumps(found, ensure_ascii=False))
        return
    print(f"step {found['step']}: held-out loss {found['loss']:.3f}, accuracy {found['accuracy']:.1%}")
    for source, score in found["by_source"].items():
        print(
            f"  {source}: loss {score['loss']:.3f}, accuracy {score['accuracy']:.1%}, {score['tokens']} tokens"
        )
    if pseudo_perplexity:
        words = f"pseudo-perplexity {math.exp(found['pseudo_loss']):.2f}, {found['pseudo_tokens']} tokens"
        print(f"  {words} of the first {rows} rows")
