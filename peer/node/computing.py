"""What a rank computes with beside its node: model, text and sum of gradients, built from what the leader has told.

Followers of a peer begin here, and all ranks of `peer bench --ranks`. The leader of a peer does not: between these
parts it enters the swarm.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from data_prep.vocabulary import read_vocabulary
from model.training_step import checkpoint_gradients
from peer.accumulator import Accumulator
from peer.device import compute_on, prepare_compute
from peer.device_facts import DeviceFacts
from peer.loss_scale import LossScale
from peer.micro_batch import shape_for
from peer.micro_batches import MicroBatches
from peer.node.family import Family
from peer.node.orders import Setup
from peer.options import JoinOptions
from peer.samples import open_samples
from swarm.bundle import TOKENIZER_FOLDER
from swarm.process_limits import yield_to_others
from swarm.training_state import build_model


def build_micro_batches(
    setup: Setup, options: JoinOptions, facts: DeviceFacts, family: Family, speeds: Mapping[str, float]
) -> MicroBatches:
    """Model, samples and accumulator of this rank on its device; nothing is computed yet, and no text read ahead.

    :param speeds: samples/s by peer, kept up to date by the caller; decides about this rank's share of the text
    """
    spec, bundle, device = setup.run_spec(), Path(setup.bundle), torch.device(facts.device)
    compute_on(device)
    vocabulary = read_vocabulary(bundle / TOKENIZER_FOLDER)
    model = build_model(spec, vocab_size=len(vocabulary), pad_token_id=vocabulary.pad_token_id)
    model.to(device).train()
    shape = shape_for(spec, facts, options, say)
    if shape.gradient_checkpointing:
        checkpoint_gradients(model)
    samples = open_samples(
        spec,
        vocabulary,
        bundle,
        options.cache_dir,
        setup.peer_id,
        lambda: dict(speeds),
        batch_size=shape.micro_batch_size,
        warn=say,
        rank=family.rank,
        ranks=family.ranks,
    )
    accumulator = Accumulator(trained_parameters(model), LossScale() if facts.precision == "fp16" else None)
    return MicroBatches(model, samples, accumulator, device, facts.precision, say)


def trained_parameters(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """What the ranks exchange, in the same order in all of them."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def begin_computing(micro_batches: MicroBatches, options: JoinOptions) -> None:
    """What makes micro-batches fast and leaves this machine to its owner; call when all ranks have met."""
    prepare_compute(micro_batches.model, micro_batches.device, compiled=options.compiled)
    yield_to_others()


def say(text: str) -> None:
    """Tell a person on stderr, for stdout is the leader's."""
    print(f"rank {os.environ.get('RANK', '?')}: {text}", file=sys.stderr, flush=True)
