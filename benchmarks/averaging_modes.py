"""What each way of averaging sends per sample, and what it costs in held-out loss at equal samples.

    python -m benchmarks.averaging_modes [--spec examples/demo.toml] [--peers 4] [--samples 25600] [--seeds 7]
                                         [--only fp32 8bit moments overlap overlap_worst low_rank local_steps]
                                         [--json FILE]

The peers are simulated in one process, so that nothing depends on the speed of this machine: every one computes its
share of a batch on its own text, the exchange goes through the run's codecs as a butterfly all-reduce does (parts are
compressed on the way to their reducer, and the difference to the average on the way back), and the step is the run's.
`moments` is `8bit` with `training.moment_bits = 8` as well. `overlap` computes a quarter of each batch at the
parameters before the last step, as peers do whose steps take a quarter of their time; `overlap_worst` the whole batch.
`local_steps` makes a global step after eight times as many samples. All see the same samples in all; the synchronous
run in fp32 is what they are compared with.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from hivemind.compression import CompressionBase, CompressionInfo

from benchmarks.interleaved import print_table
from coordinator.bundle_source import prepare_bundle
from coordinator.simulation.sizes import transfer_sizes
from data_prep.masking import WholeWordMasker
from data_prep.stream import TrainingStream, stream_seed
from data_prep.tokenizer import load_tokenizer
from peer.accumulator import Accumulator, Contribution
from peer.local_steps import LocalSteps
from swarm.bundle import HELDOUT_NAME, TOKENIZER_FOLDER, shard_paths
from swarm.codecs import compression_for
from swarm.evaluation import HeldoutEvaluator
from swarm.identity import Identity
from swarm.low_rank import LowRankGradients
from swarm.spec import RunSpec, load_spec, parse_spec
from swarm.training_state import TrainingState, build_model

LOCAL_STEPS_PER_GLOBAL = 8
STALE = {"overlap": 0.25, "overlap_worst": 1.0}
LINK_MEGABITS = 100.0
Buffers = list[torch.Tensor]


@dataclass(frozen=True)
class Outcome:
    """Of one way of averaging and one seed; bytes are those that one peer sends."""

    mode: str
    seed: int
    bytes_per_sample: float
    exchange_seconds: float
    loss: float


class SimulatedPeer:
    """Text, model and accumulator of one peer; peers that share a state compute with the same parameters."""

    def __init__(self, spec: RunSpec, bundle: Path, state: TrainingState, number: int):
        self.state = state
        local = spec.local_steps
        parameters = state.model_parameters
        self.accumulator = LocalSteps(state, local) if local is not None else Accumulator(parameters)
        self.stream = TrainingStream(
            shard_paths(bundle),
            WholeWordMasker(load_tokenizer(bundle / TOKENIZER_FOLDER)),
            sequence_length=spec.data.sequence_length,
            batch_size=spec.training.micro_batch_size,
            seed=stream_seed(spec.seed, f"peer {number}", 0),
        )

    def compute(self, samples: int) -> None:
        """Accumulate until there are so many samples."""
        self.state.model.train()
        while self.accumulator.samples < samples:
            batch = next(self.stream)
            self.accumulator.add(self.state.model(**batch).loss, len(batch["input_ids"]))


class Exchange:
    """Averages contributions as a group does; everyone's values are equal up to the codec, so one result will do."""

    def __init__(self, spec: RunSpec, peers: int):
        averaging = spec.averaging
        self._codec = compression_for(averaging.gradient_compression)
        low_rank = averaging.gradient_compression == "low_rank"
        self._compressors = [LowRankGradients(averaging.rank) for _ in range(peers)] if low_rank else []

    def average(
        self, contributions: Sequence[Contribution], shapes: Sequence[torch.Size], key: str
    ) -> Buffers:
        """The mean as the first peer gets it."""
        gradients = [[torch.empty(shape) for shape in shapes] for _ in contributions]
        for contribution, buffers in zip(contributions, gradients, strict=True):
            contribution.mean_into(buffers)
        if not self._compressors:
            return _all_reduced(gradients, self._codec)[0]
        pairs = list(zip(self._compressors, gradients, strict=True))
        _average_in_place([compressor.first(own, key) for compressor, own in pairs], compression_for("none"))
        _average_in_place([compressor.second() for compressor, _own in pairs], self._codec)
        for compressor in self._compressors:
            compressor.finish()
        return gradients[0]


def _average_in_place(values: Sequence[Buffers], codec: CompressionBase) -> None:
    for own, averaged in zip(values, _all_reduced(values, codec), strict=True):
        for target, source in zip(own, averaged, strict=True):
            target.copy_(source)


def _all_reduced(values: Sequence[Buffers], codec: CompressionBase) -> list[Buffers]:
    """What every peer has after an all-reduce through a codec."""

    def through(tensor: torch.Tensor) -> torch.Tensor:
        return codec.extract(codec.compress(tensor, CompressionInfo.from_tensor(tensor)))

    results: list[Buffers] = [[] for _ in values]
    for same in zip(*values, strict=True):
        sent = [through(tensor) for tensor in same]
        mean = torch.stack(sent).mean(0)
        for result, own, received in zip(results, same, sent, strict=True):
            result.append(own + through(mean - received))
    return results


def spec_for(base: RunSpec, mode: str, seed: int, samples: int) -> RunSpec:
    """The run of this mode that sees so many samples in all."""
    values: dict[str, Any] = base.model_dump(mode="json", exclude_none=True)
    averaging, training = values["averaging"], values["training"]
    values["seed"] = seed
    averaging["gradient_compression"] = {"fp32": "none", "low_rank": "low_rank"}.get(mode, "8bit")
    averaging["rank"] = 16
    averaging["overlap"] = mode in STALE
    warm_up = training["warmup_steps"] / training["total_steps"]
    training["moment_bits"] = 8 if mode == "moments" else 32
    if mode == "local_steps":
        batch = training["target_batch_size"]
        values["local_steps"] = {"batch_size": batch // 4}
        training["target_batch_size"] = LOCAL_STEPS_PER_GLOBAL * batch
        # local batches are a quarter of a global one
        training["learning_rate"] /= 2
    training["total_steps"] = samples // training["target_batch_size"]
    training["warmup_steps"] = max(1, round(warm_up * training["total_steps"]))
    return parse_spec(values, origin=mode)


def contributions_of(
    spec: RunSpec, peers: Sequence[SimulatedPeer], stale: float
) -> Iterator[Sequence[Contribution]]:
    """Those of one global step after the other, to be applied before the next are asked for.

    :param stale: share of each batch that is computed before the step before is applied
    """
    share, steps = spec.training.target_batch_size // len(peers), spec.training.total_steps
    for step in range(steps):
        for peer in peers:
            peer.compute(share)
        contributions = [peer.accumulator.take() for peer in peers]
        if stale and step + 1 < steps:
            for peer in peers:
                peer.compute(round(stale * share))
        yield contributions


def run(spec: RunSpec, mode: str, bundle: Path, peers: int) -> Outcome:
    """Train with one way of averaging."""
    tokenizer = load_tokenizer(bundle / TOKENIZER_FOLDER)
    model = build_model(spec, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    state = TrainingState(spec, model)
    # peers that move by themselves each have a model
    states = [state] + [
        TrainingState(spec, copy.deepcopy(model)) if spec.local_steps else state for _ in range(peers - 1)
    ]
    simulated = [SimulatedPeer(spec, bundle, own, number) for number, own in enumerate(states)]
    exchange, training = Exchange(spec, peers), spec.training
    for contributions in contributions_of(spec, simulated, STALE.get(mode, 0.0)):
        mean = exchange.average(
            contributions, [tensor.shape for tensor in state.parameters], f"step {state.step}"
        )
        for own in dict.fromkeys(states):
            own.apply_gradients([tensor.clone() for tensor in mean], f"{state.step:x}")
            own.refresh_model()
    for peer in simulated:
        peer.stream.close()
    sent = 2 * (peers - 1) / peers * transfer_sizes(spec).gradients
    return Outcome(
        mode,
        spec.seed,
        sent / training.target_batch_size,
        sent * 8 / (LINK_MEGABITS * 1e6),
        HeldoutEvaluator(bundle / HELDOUT_NAME).loss(state),
    )


MODES = ("fp32", "8bit", "moments", "overlap", "overlap_worst", "low_rank", "local_steps")


def rows_of(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """The printed table: means over seeds."""
    exact = {outcome.seed: outcome.loss for outcome in outcomes if outcome.mode == "fp32"}
    rows = []
    for mode in dict.fromkeys(outcome.mode for outcome in outcomes):
        same = [outcome for outcome in outcomes if outcome.mode == mode]
        more = [outcome.loss / exact[outcome.seed] - 1 for outcome in same if outcome.seed in exact]
        rows.append(
            (
                mode,
                f"{same[0].bytes_per_sample:,.0f}",
                f"{same[0].exchange_seconds:.3f}",
                f"{statistics.mean(outcome.loss for outcome in same):.3f}",
                f"{statistics.mean(more):+.2%}" if more else "",
                str(len(same)),
            )
        )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", type=Path, default=Path("examples/demo.toml"))
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--samples", type=int, default=25600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7])
    parser.add_argument("--only", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    base, outcomes = load_spec(given.spec), list[Outcome]()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        prepare_bundle(
            bundle, base, given.spec.parent, Identity.generate(), lambda text: print(text, file=sys.stderr)
        )
        for seed in given.seeds:
            for mode in given.only:
                outcomes.append(run(spec_for(base, mode, seed, given.samples), mode, bundle, given.peers))
                print(outcomes[-1], file=sys.stderr, flush=True)
                if given.json:
                    given.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    header = (
        "mode",
        "bytes sent a sample",
        f"s a step at {LINK_MEGABITS:g} Mbit/s",
        "held-out loss",
        "to fp32",
        "seeds",
    )
    print_table(header, rows_of(outcomes))


if __name__ == "__main__":
    main()
