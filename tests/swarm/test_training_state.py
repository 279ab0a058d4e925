"""A training state with moments in codes: exact when it travels, and refused when nobody can have written it."""

from __future__ import annotations

import pytest
import torch

from swarm.snapshot import Snapshot
from swarm.spec import RunSpec
from swarm.training_state import TrainingState, build_model, state_digest

MODEL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "embedding_size": 32,
}
VOCAB_SIZE = 4096  # so that the embeddings have enough values for codes
EMBEDDINGS = "albert.embeddings.word_embeddings.weight"


def new_state(moment_bits: int = 8) -> TrainingState:
    spec = RunSpec(name="states", model=MODEL, training={"moment_bits": moment_bits})
    return TrainingState(spec, build_model(spec, vocab_size=VOCAB_SIZE, pad_token_id=0))


def advance(state: TrainingState) -> None:
    generator = torch.Generator().manual_seed(state.step)
    state.apply_gradients([torch.randn(p.shape, generator=generator) for p in state.parameters], "")


def test_moments_in_codes_travel_exactly_and_training_goes_on_the_same():
    state, other = new_state(), new_state()
    advance(state)
    other.load(state.snapshot())
    for one in (state, other):
        advance(one)
    assert state_digest(state.snapshot()) == state_digest(other.snapshot())
    codes = state.named_moments()[f"{EMBEDDINGS}/exp_avg_codes"]
    assert codes.dtype == torch.uint8
    assert codes.any()


def test_a_state_with_codes_takes_half_the_bytes():
    coded, plain = (sum(layout.bytes for layout in new_state(bits).layouts) for bits in (8, 32))
    embeddings = VOCAB_SIZE * MODEL["embedding_size"]
    assert plain - coded == pytest.approx(2 * 3 * embeddings, rel=0.01)


@pytest.mark.parametrize(
    ("bits", "moment", "value"),
    [
        (8, "exp_avg_sq_codes", 0),  # minus one, which no second moment is
        (8, "exp_avg_absmax", -1.0),
        (32, "exp_avg_sq", -1e-9),
        (32, "exp_avg", float("inf")),
        (32, "step", -1.0),
    ],
)
def test_a_state_that_no_optimizer_has_is_refused_and_changes_nothing(bits, moment, value):
    state = new_state(bits)
    advance(state)
    digest, snapshot = state_digest(state.snapshot()), state.snapshot()
    place = len(state.parameters) + list(state.named_moments()).index(f"{EMBEDDINGS}/{moment}")
    snapshot.tensors[place].view(-1)[:1] = value
    with pytest.raises(ValueError, match=EMBEDDINGS):
        state.load(snapshot)
    assert state_digest(state.snapshot()) == digest


def test_moments_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="shapes and types"):
        new_state(8).load(Snapshot(1, "", new_state(32).snapshot().tensors))
