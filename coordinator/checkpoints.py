"""Checkpoints on disk: ordinary Hugging Face directories with a manifest of digests, written all or nothing.

    checkpoints/step-00000120/   config.json, model.safetensors, tokenizer files, the model's code
                                 optimizer.safetensors   the optimizer's moments by parameter name
                                 README.md, loss.svg     the model card
                                 manifest.json           step, branch, scores, changed settings, positions in the text,
                                                         size and SHA-256 of every other file
    checkpoints/latest           symlink to the newest intact one

A checkpoint is written under a temporary name, synced to disk and renamed; a kill or a full disk leaves a temporary
directory that the next start removes, and `latest` where it was. One that takes the place of another of its step sets
that aside first; a kill between the two renames leaves it aside, and the next start puts it back.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from data_prep.tokenizer import save_tokenizer
from model.published_form import hugging_face_model
from swarm.bundle import file_digest
from swarm.errors import OperationFailed
from swarm.spec import RunSpec
from swarm.training_state import TrainingState
from swarm.whole_file import sync

logger = logging.getLogger(__name__)

FORMAT = 1
MANIFEST = "manifest.json"
OPTIMIZER = "optimizer.safetensors"
LATEST = "latest"
_NAME = re.compile(r"^step-(\d{8,})$")
_TEMPORARY_PREFIX = ".writing-"
_REPLACED_PREFIX = ".replaced-"


@dataclass(frozen=True)
class Checkpoint:
    """One intact checkpoint: where it is and what its manifest says.

    :param settings: a `SettingsPlan`, if settings were changed while the run went on
    :param begun_with: name of the folder of foreign weights that the run began with
    """

    path: Path
    step: int
    branch: str
    run_id: str
    train_loss: float | None
    heldout_loss: float | None
    digest: str
    saved_at: float
    heldout_accuracy: float | None = None
    heldout_by_source: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] | None = None
    begun_with: str | None = None


class CheckpointStore:
    """Writes, lists, verifies and thins out the checkpoints of one run.

    :param keep: how many of the newest stay; the best by held-out loss and the first stay as well
    :param keep_multiples_of: and those whose step is a multiple of this; 0: none
    """

    def __init__(self, directory: Path, run_id: str, keep: int, keep_multiples_of: int = 0):
        self.directory, self.run_id, self.keep = directory, run_id, keep
        self.keep_multiples_of = keep_multiples_of
        for leftover in directory.glob(f"{_TEMPORARY_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for replaced in directory.glob(f"{_REPLACED_PREFIX}*"):
            self._end_replacement(replaced)

    @classmethod
    def of(cls, directory: Path, spec: RunSpec) -> CheckpointStore:
        """The store of a run, with its spec's retention."""
        every = spec.checkpoints.keep_every * spec.checkpoints.every_steps
        return cls(directory, spec.run_id, spec.checkpoints.keep, every)

    def list(self) -> list[Checkpoint]:
        """All checkpoints with a readable manifest, oldest first; digests of their files are not checked."""
        found = (read_checkpoint(path) for path in self.directory.iterdir() if _NAME.match(path.name))
        return sorted((item for item in found if item is not None), key=lambda item: item.step)

    def newest_intact(self) -> Checkpoint | None:
        """The newest checkpoint all of whose files match the manifest; damaged ones are passed over, with a word."""
        for checkpoint in reversed(self.list()):
            damage = find_damage(checkpoint.path)
            if damage is None:
                self._point_latest(checkpoint.path)
                return checkpoint
            logger.warning("checkpoint %s is damaged (%s); trying an older one", checkpoint.path, damage)
        return None

    def write(
        self,
        state: TrainingState,
        tokenizer: PreTrainedTokenizerFast,
        *,
        train_loss: float | None,
        heldout_loss: float | None,
        more: Mapping[str, Any] | None = None,
        documents: Mapping[str, str] | None = None,
    ) -> Checkpoint:
        """Save the state as a new checkpoint; raises `OperationFailed` and leaves nothing half-written.

        :param more: of the evaluation and the run, for the manifest
        :param documents: texts to lay beside the weights, by file name
        """
        name = checkpoint_name(state.step)
        temporary = Path(tempfile.mkdtemp(dir=self.directory, prefix=_TEMPORARY_PREFIX))
        facts = {
            "step": state.step,
            "branch": state.branch,
            "run_id": self.run_id,
            "train_loss": train_loss,
            "heldout_loss": heldout_loss,
            **(more or {}),
        }
        try:
            _write_files(temporary, state, tokenizer)
            for file, text in (documents or {}).items():
                (temporary / file).write_text(text, encoding="utf-8")
            _write_manifest(temporary, {**facts, "format": FORMAT, "saved_at": time.time()})
            os.chmod(temporary, 0o755)
            _sync_tree(temporary)
            final = self._move_into_place(temporary, self.directory / name)
        except Exception as error:  # safetensors and tokenizers have errors of their own for a full disk
            shutil.rmtree(temporary, ignore_errors=True)
            reason = getattr(error, "strerror", None) or error
            raise OperationFailed(f"checkpoint {name} could not be written ({reason})") from None
        self._point_latest(final)
        self._thin_out()
        written = read_checkpoint(final)
        if written is None:
            raise OperationFailed(f"checkpoint {name} cannot be read back")
        return written

    def _move_into_place(self, temporary: Path, final: Path) -> Path:
        replaced = self.directory / f"{_REPLACED_PREFIX}{final.name}"
        if final.exists():  # the same step again, after a restart from an older checkpoint
            others = [item.path for item in self.list() if item.path != final]
            if others and (self.directory / LATEST).resolve() == final.resolve():
                self._point_latest(others[-1])
            os.replace(final, replaced)
        os.replace(temporary, final)
        sync(self.directory)
        if replaced.exists():
            self._end_replacement(replaced)
        return final

    def _end_replacement(self, replaced: Path) -> None:
        """Remove what was replaced, or put it back if what should replace it is not there."""
        final = self.directory / replaced.name.removeprefix(_REPLACED_PREFIX)
        with contextlib.suppress(
            FileNotFoundError
        ):  # coordinator and checkpoint process start at the same time
            if final.exists():
                self._discard(replaced)
            else:
                os.replace(replaced, final)

    def _point_latest(self, target: Path) -> None:
        link = self.directory / f".{LATEST}.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(target.name)
        os.replace(link, self.directory / LATEST)
        sync(self.directory)

    def _thin_out(self) -> None:
        checkpoints = self.list()
        best = min(
            checkpoints, key=lambda item: item.heldout_loss if item.heldout_loss is not None else float("inf")
        )
        kept = {checkpoints[0].path, best.path, *(item.path for item in checkpoints[-self.keep :])}
        every = self.keep_multiples_of
        for checkpoint in checkpoints:
            if checkpoint.path not in kept and not (every and checkpoint.step % every == 0):
                self._discard(checkpoint.path)

    def _discard(self, path: Path) -> None:
        """Renamed first: a half-deleted directory must not look like a checkpoint."""
        doomed = self.directory / f"{_TEMPORARY_PREFIX}{path.name}"
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def checkpoint_name(step: int) -> str:
    """Name of the folder of the checkpoint at a global step."""
    return f"step-{step:08d}"


def read_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint in this folder, if its manifest can be read; digests of its files are not checked."""
    try:
        facts = json.loads((path / MANIFEST).read_bytes())
        return Checkpoint(
            path=path,
            step=int(facts["step"]),
            branch=str(facts.get("branch", "")),
            run_id=str(facts["run_id"]),
            train_loss=facts["train_loss"],
            heldout_loss=facts["heldout_loss"],
            digest=f"sha256:{file_digest(path / MANIFEST)}",
            saved_at=float(facts["saved_at"]),
            heldout_accuracy=facts.get("heldout_accuracy"),
            heldout_by_source=facts.get("heldout_by_source", {}),
            settings=facts.get("settings"),
            begun_with=facts.get("begun_with"),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None if all match the manifest."""
    try:
        files = json.loads((path / MANIFEST).read_bytes())["files"]
        for name, expected in files.items():
            file = path / name
            if not file.is_file() or file.stat().st_size != expected["size"]:
                return f"{name} is missing or has the wrong size"
            if file_digest(file) != expected["sha256"]:
                return f"{name} does not match its digest"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    return None


def load_checkpoint(checkpoint: Checkpoint, state: TrainingState) -> None:
    """Bring a state to what a checkpoint holds; raises `OperationFailed` if it is of another model."""
    try:
        weights = load_file(checkpoint.path / "model.safetensors")
        moments = load_file(checkpoint.path / OPTIMIZER)
        state.load_named(checkpoint.step, checkpoint.branch, weights, moments)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise OperationFailed(f"checkpoint {checkpoint.path} does not fit this run: {error}") from None


def _write_files(directory: Path, state: TrainingState, tokenizer: PreTrainedTokenizerFast) -> None:
    with state.lock:
        hugging_face_model(state.model).save_pretrained(directory)
        save_file(state.named_moments(), directory / OPTIMIZER)
    save_tokenizer(tokenizer, directory)


def _write_manifest(directory: Path, facts: dict[str, object]) -> None:
    files = {
        path.relative_to(directory).as_posix(): {"size": path.stat().st_size, "sha256": file_digest(path)}
        for path in _files(directory)
    }
    (directory / MANIFEST).write_text(json.dumps({**facts, "files": files}, indent=1))


def _files(directory: Path) -> Iterator[Path]:
    yield from sorted(path for path in directory.rglob("*") if path.is_file())


def _sync_tree(directory: Path) -> None:
    for path in _files(directory):
        sync(path)
    sync(directory)
