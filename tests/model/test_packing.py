"""Several sequences packed into one row give the numbers they give alone."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from model import LeanAlbertForPreTraining, layers_lean_albert, packing_lean_albert
from model.packing_lean_albert import HAS_VARIABLE_LENGTH_KERNEL, kept_positions, runs_of
from model.training_step import compile_layers

LENGTHS = (5, 9, 3, 7)


@pytest.fixture
def sequences():
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(4, 101, (length,), generator=generator) for length in LENGTHS]


def labels_of(sequence):
    return torch.where(torch.arange(len(sequence)) % 3 == 1, sequence, -100)


def padded(sequences):
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad(sequences, batch_first=True)
    labels = pad([labels_of(s) for s in sequences], batch_first=True, padding_value=-100)
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}


def packed(sequences, rows=((0, 1), (2, 3)), width=16):
    """Two rows: the first two sequences and the last two, padded to `width`."""
    ids, labels, sequence_ids = (torch.full((2, width), fill) for fill in (0, -100, 0))
    for row, members in enumerate(rows):
        at = 0
        for number, member in enumerate(members, start=1):
            end = at + len(sequences[member])
            ids[row, at:end] = sequences[member]
            labels[row, at:end] = labels_of(sequences[member])
            sequence_ids[row, at:end] = number
            at = end
    return {"input_ids": ids, "labels": labels, "sequence_ids": sequence_ids}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("positions", ["rotary", "absolute"])
def test_packed_equals_padded(small_config, sequences, attention, positions):
    model = LeanAlbertForPreTraining(small_config(position_embedding_type=positions)).eval()
    model.set_attn_implementation(attention)
    order = torch.tensor([0, 1, 1, 0])
    gradients, outputs, scores = [], [], []
    for inputs, kept in ((padded(sequences), "attention_mask"), (packed(sequences), "sequence_ids")):
        model.zero_grad()
        output = model(**inputs, sentence_order_label=order)
        output.loss.backward()
        outputs.append((output.loss, output.sop_logits))
        scores.append(output.prediction_logits[inputs[kept] > 0])
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_training_mode_agrees_with_padding(small_config, sequences):
    model = LeanAlbertForPreTraining(small_config()).train()
    torch.testing.assert_close(model(**padded(sequences)).loss, model(**packed(sequences)).loss)


def test_a_neighbour_in_the_row_changes_nothing(small_config, sequences):
    model = LeanAlbertForPreTraining(small_config()).eval()
    inputs = packed(sequences)
    before = model(**inputs).prediction_logits[0, 5:14]
    inputs["input_ids"][0, :5] = 7
    torch.testing.assert_close(model(**inputs).prediction_logits[0, 5:14], before, rtol=0, atol=1e-6)


def packed_rows(width=16):
    """Ids [2, L] and their sequence ids, with padding in the second row and an id that comes back in the first."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(4, 101, (2, width), generator=generator)
    numbers = torch.tensor([[1] * 5 + [2] * 8 + [1] * 3, [1] * 4 + [2] * 7 + [0] * 5])
    return {"input_ids": ids, "sequence_ids": numbers}


def test_attention_run_by_run_equals_attention_under_a_mask(small_config, monkeypatch):
    model = LeanAlbertForPreTraining(small_config()).eval()
    found = []
    for by_run in (True, False):
        if not by_run:
            monkeypatch.setattr(layers_lean_albert, "can_attend_by_run", lambda *_: False)
        output = model(**packed_rows(), output_hidden_states=True)
        assert all(state.shape == (2, 16, 64) for state in output.hidden_states)
        found.append([output.prediction_logits, output.sop_logits, *output.hidden_states])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_every_position_is_in_one_run_and_no_run_crosses_a_row():
    runs = runs_of(packed_rows()["sequence_ids"])
    assert runs.lengths == (5, 8, 3, 4, 7, 5)
    assert runs.boundaries.tolist() == [0, 5, 13, 16, 20, 27, 32]
    assert runs.row_length == 16


def test_the_runs_of_some_positions():
    numbers = packed_rows()["sequence_ids"]
    kept, wanted = kept_positions(numbers, torch.tensor([30, 2, 31]))
    assert kept.tolist() == [*range(27), 30, 31]
    assert wanted.tolist() == [27, 2, 28]
    assert runs_of(numbers, kept).lengths == (5, 8, 3, 4, 7, 2)
    assert runs_of(numbers, kept).boundaries.tolist() == [0, 5, 13, 16, 20, 27, 29]


def test_padding_is_not_computed_while_training(small_config, sequences):
    model = LeanAlbertForPreTraining(small_config()).train()
    (pair,) = (module for module in model.modules() if isinstance(module, layers_lean_albert.LeanAlbertPair))
    seen, found = [], []
    pair.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape[1]))
    for keeps in (True, False):
        model.albert.transformer.keeps_padding = keeps
        model.zero_grad()
        output = model(**packed(sequences), sentence_order_label=torch.tensor([0, 1, 1, 0]))
        output.loss.backward()
        found.append([output.loss, output.prediction_logits, *(p.grad.clone() for p in model.parameters())])
    assert set(seen) == {32, sum(LENGTHS)}
    torch.testing.assert_close(*found)


def test_a_label_at_padding_breaks_nothing(small_config, sequences):
    model = LeanAlbertForPreTraining(small_config()).train()
    inputs = packed(sequences)
    before = model(**inputs).prediction_logits
    inputs["labels"][1, -1] = 5
    after = model(**inputs).prediction_logits
    torch.testing.assert_close(after[:-1], before)


def test_a_neighbour_with_the_same_id_further_on_stays_apart(small_config):
    model = LeanAlbertForPreTraining(small_config()).eval()
    inputs = packed_rows()
    before = model(**inputs).prediction_logits[0, 13:]
    inputs["input_ids"][0, :5] = 7
    assert torch.equal(model(**inputs).prediction_logits[0, 13:], before)


def test_gradient_checkpointing_and_packing_go_together(small_config):
    model = LeanAlbertForPreTraining(small_config()).train()
    inputs = packed_rows()
    inputs["labels"] = inputs["input_ids"].where(torch.arange(16) % 4 == 1, -100)
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.zero_grad()
        model(**inputs).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients)


@pytest.mark.skipif(not HAS_VARIABLE_LENGTH_KERNEL, reason="this torch has no variable-length kernel")
def test_the_variable_length_kernel_is_called_as_it_wants_to_be():
    # its stand-in for tracing checks what it is given, without a GPU
    runs = runs_of(packed_rows()["sequence_ids"])
    with FakeTensorMode(allow_non_fake_inputs=True):
        thirds = [torch.empty(1, 4, 32, 16, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
        mixed = packing_lean_albert._in_one_kernel(*thirds, runs)
    assert mixed.shape == (1, 4, 32, 16)
    assert mixed.dtype == torch.bfloat16


@pytest.mark.heavy
def test_other_lengths_do_not_compile_again(small_config):
    model = LeanAlbertForPreTraining(small_config()).train()
    compile_layers(model)
    inputs = packed_rows()
    model(**inputs).prediction_logits.sum().backward()
    with torch.compiler.set_stance("fail_on_recompile"):
        inputs["sequence_ids"][0, :9] = 3
        model(**inputs).prediction_logits.sum().backward()
