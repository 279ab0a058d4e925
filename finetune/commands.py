"""What the sub-commands do, from words of a command line to results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.diagnostic import run_diagnostic
from finetune.run import RunRequest, run_task
from finetune.settings import parse_settings
from finetune.tasks import find_task


def run_command(
    task: str,
    model: str,
    data: str,
    output: Path,
    seeds: int,
    assignments: Sequence[str] = (),
    first_stage_data: str | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """`finetune run`: the summary of the run."""
    kind = find_task(task)
    settings, options = parse_settings(kind, assignments)
    request = RunRequest(
        kind, model, data, output, range(seeds), settings, options, first_stage_data, trust_remote_code
    )
    return run_diagnostic(request) if kind.trained_as else run_task(request)
