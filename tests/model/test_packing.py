"""Several sequences packed into one row give the numbers they give alone."""

from __future__ import annotations

import pytest
import torch

from model import LeanAlbertForPreTraining

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
