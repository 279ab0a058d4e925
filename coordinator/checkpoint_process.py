"""The child of `checkpoint_worker`: loads states that come through stdin, scores them and writes checkpoints.

One JSON object per line in both directions; a request's line is followed by the bytes of its state's tensors. An
answer with `error` says in a line what went wrong; the process ends when its parent does, or stdin.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import torch
from transformers.utils.logging import disable_progress_bar

from coordinator.checkpoints import CheckpointStore
from coordinator.last_state import write_last_state
from coordinator.loss_curve import draw_loss_curve
from coordinator.model_card import LOSS_CURVE, CardFacts, write_card
from data_prep.errors import DataError
from data_prep.tokenizer import load_tokenizer
from swarm.bundle import HELDOUT_NAME, TOKENIZER_FOLDER
from swarm.errors import ArtelError, OperationFailed
from swarm.evaluation import Evaluation, HeldoutEvaluator
from swarm.lifeline import die_with_parent, ignore_polite_signals
from swarm.process_limits import yield_to_others
from swarm.snapshot import Snapshot
from swarm.spec import RunSpec, parse_spec
from swarm.training_state import TrainingState, build_model, state_digest

# of a full disk, a damaged file, too little memory, an impossible state: told in a line, and the process goes on
EXPECTED = (ArtelError, DataError, OSError, RuntimeError, ValueError)


class _CheckpointProcess:
    """One state at a time; every answer is made of values that JSON has."""

    def __init__(self, spec: RunSpec, bundle: Path, checkpoints: Path, last_state: Path):
        self.spec, self.last_state = spec, last_state
        self.tokenizer = load_tokenizer(bundle / TOKENIZER_FOLDER)
        vocab_size, padding = len(self.tokenizer), self.tokenizer.pad_token_id
        self.state = TrainingState(spec, build_model(spec, vocab_size=vocab_size, pad_token_id=padding))
        self.evaluator = HeldoutEvaluator(bundle / HELDOUT_NAME)
        self.store = CheckpointStore.of(checkpoints, spec)

    def receive(self, request: dict[str, Any], stream: BinaryIO) -> Snapshot:
        """The state that follows a request."""
        tensors = [torch.empty(layout.shape, dtype=layout.dtype) for layout in self.state.layouts]
        for tensor in tensors:
            view = tensor.view(-1).numpy().data.cast("B")
            if stream.readinto(view) != len(view):  # type: ignore[attr-defined]
                raise EOFError
        return Snapshot(request["step"], request["branch"], tensors)

    def judge(self, snapshot: Snapshot, limit: float, keep: bool) -> dict[str, Any]:
        """Whether a state is good enough to be the run's; then it is kept on disk."""
        self.state.load(snapshot)
        loss = self.evaluator.probe(self.state)
        good, trouble = math.isfinite(loss) and loss <= limit, ""
        if good and keep:
            try:
                write_last_state(self.last_state, snapshot, self.spec.run_id)
            except ArtelError as error:  # a full disk: the state is good all the same
                trouble = str(error)
        loss_or_none = loss if math.isfinite(loss) else None
        return {"loss": loss_or_none, "digest": state_digest(snapshot), "good": good, "trouble": trouble}

    def write(
        self, snapshot: Snapshot, train_loss: float | None, run: dict[str, Any], kept: dict[str, Any]
    ) -> dict[str, Any]:
        """Evaluate and write a checkpoint with its card."""
        self.state.load(snapshot)
        evaluation = self.evaluator.evaluate(self.state)
        if not math.isfinite(evaluation.loss):
            raise OperationFailed(
                f"refused the checkpoint of step {snapshot.step}: its held-out loss is not finite"
            )
        facts = CardFacts(
            spec=self.spec,
            step=snapshot.step,
            train_loss=train_loss,
            evaluation=evaluation,
            parameters=sum(parameter.numel() for parameter in self.state.model.parameters()),
            begun_with=kept.get("begun_with"),
            **run,
        )
        curve = draw_loss_curve(facts.train_curve, [*facts.heldout_curve, (snapshot.step, evaluation.loss)])
        checkpoint = self.store.write(
            self.state,
            self.tokenizer,
            train_loss=train_loss,
            heldout_loss=evaluation.loss,
            more={**_scores(evaluation), **kept},
            documents={"README.md": write_card(facts), LOSS_CURVE: curve},
        )
        return {"name": checkpoint.path.name}


def _scores(evaluation: Evaluation) -> dict[str, Any]:
    by_source = {
        source: {"loss": score.loss, "accuracy": score.accuracy, "tokens": score.tokens}
        for source, score in evaluation.by_source.items()
    }
    return {"heldout_accuracy": evaluation.accuracy, "heldout_by_source": by_source}


def main() -> None:
    """Serve requests until stdin ends."""
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    setup = json.loads(stdin.readline())
    die_with_parent(setup["parent"])
    ignore_polite_signals()
    yield_to_others()
    disable_progress_bar()
    spec = parse_spec(setup["spec"], origin="the coordinator's spec")
    places = (Path(setup[name]) for name in ("bundle", "checkpoints", "last_state"))
    try:
        process = _CheckpointProcess(spec, *places)
    except EXPECTED as error:
        _answer(stdout, {"error": _in_a_line(error)})
        os._exit(1)
    _answer(stdout, {"ready": True})
    while line := stdin.readline():
        request = json.loads(line)
        try:
            snapshot = process.receive(request, stdin)
        except EOFError:
            break
        _answer(stdout, _work(process, request, snapshot))
    os._exit(0)


def _work(process: _CheckpointProcess, request: dict[str, Any], snapshot: Snapshot) -> dict[str, Any]:
    try:
        if request["do"] == "judge":
            return process.judge(snapshot, request["limit"], request["keep"])
        return process.write(snapshot, request["train_loss"], request["run"], request["kept"])
    except EXPECTED as error:
        return {"error": _in_a_line(error)}


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _answer(stdout: BinaryIO, answer: dict[str, Any]) -> None:
    stdout.write(json.dumps(answer).encode() + b"\n")
    stdout.flush()
