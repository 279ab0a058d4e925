"""What a person sees of training: a bar on a terminal, one line an evaluation elsewhere."""

from __future__ import annotations

import math
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.errors import OperationFailed


def say(message: str) -> None:
    """A line for people; stdout is for results."""
    print(message, file=sys.stderr, flush=True)


class ProgressReport(TrainerCallback):
    """Shows steps, loss and the metric of every evaluation under a name; raises when the loss is not a number."""

    def __init__(self, name: str, metric: str) -> None:
        self._name, self._metric = name, metric
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task: Any = None
        self._loss = math.nan

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._bar.start()
        self._task = self._bar.add_task(self._name, total=state.max_steps, completed=state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        self._loss = (logs or {}).get("loss", self._loss)
        if logs and "loss" in logs and not math.isfinite(logs["loss"]):
            raise OperationFailed(
                f"{self._name}: the loss is {logs['loss']} at step {state.global_step}: "
                "training diverged; try a lower learning_rate, or precision=fp32"
            )

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        value = (metrics or {}).get(f"eval_{self._metric}")
        if value is not None and state.epoch is not None:
            line = f"{self._name}: epoch {state.epoch:.2g}, loss {self._loss:.3f}, {self._metric} {value:.3f}"
            self._bar.console.print(line, highlight=False) if not self._bar.disable else say(line)

    def close(self) -> None:
        self._bar.stop()
