"""The network that peers train is the Hugging Face model without transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model import LeanAlbertForPreTraining, LeanAlbertNetwork, LeanAlbertShape
from model.published_form import hugging_face_model
from model.training_step import checkpoint_gradients, checkpoints_gradients
from tests.model.conftest import SMALL

SHAPES = [{}, {"num_hidden_groups": 2, "share_large_matrices": True, "adapter_dim": 4, "lowrank_dim": 4}]


def make(**overrides: object) -> LeanAlbertNetwork:
    torch.manual_seed(3)
    return LeanAlbertNetwork(LeanAlbertShape(**{**SMALL, **overrides}))


@pytest.mark.parametrize("overrides", SHAPES)
def test_losses_and_gradients_are_those_of_the_hugging_face_model(overrides, batch):
    network = make(**overrides).train()
    twin = LeanAlbertForPreTraining(hugging_face_model(network).config).train()
    twin.load_state_dict(network.state_dict())
    losses = []
    for model in (network, twin):
        losses.append(model(**batch).loss)
        losses[-1].backward()
    assert torch.equal(*losses)
    gradients = [{name: p.grad for name, p in model.named_parameters()} for model in (network, twin)]
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())


def test_packed_and_unmasked_scores_are_those_of_the_hugging_face_model(batch):
    network = make().eval()
    twin = hugging_face_model(network).eval()
    sequence_ids = torch.tensor([[1] * 5 + [2] * 7, [1] * 9 + [0] * 3])
    inputs = {"input_ids": batch["input_ids"], "sequence_ids": sequence_ids}
    with torch.no_grad():
        ours, theirs = network(**inputs), twin(**inputs)
    assert torch.equal(ours.prediction_logits, theirs.prediction_logits)
    assert torch.equal(ours.sop_logits, theirs.sop_logits)
    assert ours.loss is None


def test_fresh_weights_are_drawn_as_the_hugging_face_model_draws_them():
    network = make()
    torch.manual_seed(3)
    theirs = LeanAlbertForPreTraining(hugging_face_model(network).config)
    for (name, ours), other in zip(network.named_parameters(), theirs.parameters(), strict=True):
        assert ours.shape == other.shape
        torch.testing.assert_close(ours.std(), other.std(), rtol=0.25, atol=1e-3, msg=name)
    assert (network.albert.embeddings.word_embeddings.weight[0] == 0).all()


def test_the_published_form_shares_the_weights(tmp_path: Path):
    network = make()
    published = hugging_face_model(network)
    ours, theirs = dict(network.named_parameters()), dict(published.named_parameters())
    assert ours.keys() == theirs.keys()
    matrices = [name for name, parameter in ours.items() if parameter.dim() > 1]
    assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in matrices)
    published.save_pretrained(tmp_path)
    again = LeanAlbertForPreTraining.from_pretrained(tmp_path)
    assert all(torch.equal(p, dict(again.named_parameters())[name]) for name, p in ours.items())


def test_recomputed_activations_give_the_same_gradients(batch):
    plain, saving = make().train(), make().train()
    assert not checkpoints_gradients(saving)
    checkpoint_gradients(saving)
    assert checkpoints_gradients(saving)
    for model in (plain, saving):
        model(**batch).loss.backward()
    for ours, theirs in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_training_step_needs_neither_transformers_nor_the_compiler():
    program = """
import sys, torch
from model import Lamb, LeanAlbertNetwork, LeanAlbertShape, parameter_groups
network = LeanAlbertNetwork(LeanAlbertShape(
    vocab_size=64, embedding_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24))
optimizer = Lamb(parameter_groups(network, 0.01))
ids = torch.arange(5, 29).view(2, 12)
network(ids, labels=ids, sequence_ids=torch.tensor([[1] * 6 + [2] * 6] * 2)).loss.backward()
optimizer.step()
optimizer.zero_grad()
print([name for name in ("transformers", "torch._dynamo", "sympy") if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
