"""What is to be measured, as JSON that a measuring process understands.

From a run spec, or from the `config.json` of a checkpoint. Bad input raises `BadInput` with one line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from model import LeanAlbertShape
from model.shape_lean_albert import MODEL_TYPE
from peer.device import choose_precision, has_cpu_bf16
from swarm.errors import BadInput
from swarm.spec import RunSpec, load_spec

SEQUENCE_LENGTH = 512
LARGEST = 256
# how much of what the swarm needs for a step one peer may compute before it looks around again
SHARE_OF_STEP = 8
STEP_SECONDS = 30.0


@dataclass(frozen=True)
class Workload:
    """The model and the rows that a micro-batch consists of, and what a run wants of one."""

    config: dict[str, Any]
    sequence_length: int
    largest: int
    step_seconds: float


@dataclass(frozen=True)
class BenchPlan:
    """All settings to measure, on one device. `settings` are pairs (precision, compiled).

    :param checkpointing: of gradients: `never`, `always`, or `if needed`, where memory ended a search without it
    """

    workload: Workload
    device: str
    settings: tuple[tuple[str, bool], ...]
    search_seconds: float
    with_data: bool
    checkpointing: str = "never"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> BenchPlan:
        values = json.loads(text)
        values["workload"] = Workload(**values["workload"])
        values["settings"] = tuple((precision, compiled) for precision, compiled in values["settings"])
        return BenchPlan(**values)


def workload_of_spec(spec: RunSpec) -> Workload:
    """A peer's micro-batch of this run."""
    config = LeanAlbertShape(vocab_size=spec.data.vocab_size, **spec.model.model_dump())
    largest = max(1, spec.training.target_batch_size // SHARE_OF_STEP)
    return Workload(
        config.fields(), spec.data.sequence_length, min(LARGEST, largest), max(1.0, spec.leases.period)
    )


def workload_of_file(path: Path, sequence_length: int | None = None) -> Workload:
    """Of a run spec (.toml), a `config.json`, or a folder that holds one; raises `BadInput`."""
    if path.is_dir():
        path = path / "config.json"
    if path.suffix != ".json":
        workload = workload_of_spec(load_spec(path))
    else:
        config = _read_config(path)
        length = min(SEQUENCE_LENGTH, config.max_position_embeddings)
        workload = Workload(config.fields(), length, LARGEST, STEP_SECONDS)
    if sequence_length is None:
        return workload
    if sequence_length > (limit := workload.config["max_position_embeddings"]):
        raise BadInput(f"--sequence-length {sequence_length} is more than the {limit} positions of the model")
    return Workload(workload.config, sequence_length, workload.largest, workload.step_seconds)


def _read_config(path: Path) -> LeanAlbertShape:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("model_type", MODEL_TYPE) != MODEL_TYPE:
            raise ValueError(f"model_type is {values['model_type']!r}")
        return LeanAlbertShape.of(values)
    except FileNotFoundError:
        raise BadInput(
            f"{path} does not exist: give a run spec (.toml) or a checkpoint's config.json"
        ) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is not the configuration of a LeanALBERT: {error}") from None


def settings_for(
    device: torch.device, precisions: Sequence[str] | None, compiled: bool | None
) -> tuple[tuple[str, bool], ...]:
    """Pairs (precision, compiled) worth measuring here; the expected best first."""
    chosen = tuple(precisions or default_precisions(device))
    variants = (False, True) if compiled is None else (compiled,)
    return tuple((precision, variant) for variant in variants for precision in chosen)


def default_precisions(device: torch.device) -> tuple[str, ...]:
    """What `peer join` would choose first; on a CPU without bf16, it is only emulated and not worth the time."""
    if device.type == "cuda":
        best = choose_precision(None, device)
        return (best, "fp32") if best != "fp32" else ("fp32",)
    return ("fp32", "bf16") if has_cpu_bf16() else ("fp32",)
