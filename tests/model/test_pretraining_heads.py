"""Losses and scores of the pre-training heads."""

from __future__ import annotations

import pytest
import torch

from model import LeanAlbertForMaskedLM, LeanAlbertForPreTraining


def test_scores_at_masked_positions_only_while_training(small_config, batch):
    model = LeanAlbertForPreTraining(small_config())
    trained, evaluated = model.train()(**batch), model.eval()(**batch)
    assert trained.prediction_logits.shape == (3, 101)
    assert evaluated.prediction_logits.shape == (2, 12, 101)
    chosen = evaluated.prediction_logits[batch["labels"] != -100]
    torch.testing.assert_close(trained.prediction_logits, chosen)
    torch.testing.assert_close(trained.loss, evaluated.loss)


def test_evaluation_may_ask_for_masked_positions_only(small_config, batch):
    model = LeanAlbertForPreTraining(small_config()).eval()
    assert model(**batch, masked_positions_only=True).prediction_logits.shape == (3, 101)
    assert model.train()(**batch, masked_positions_only=False).prediction_logits.shape == (2, 12, 101)


def test_loss_is_the_sum_of_both_mean_cross_entropies(small_config, batch):
    output = LeanAlbertForPreTraining(small_config()).eval()(**batch)
    chosen = batch["labels"] != -100
    mlm = torch.nn.functional.cross_entropy(output.prediction_logits[chosen], batch["labels"][chosen])
    sop = torch.nn.functional.cross_entropy(output.sop_logits, batch["sentence_order_label"])
    torch.testing.assert_close(output.loss, mlm + sop)


def test_no_masked_label_gives_zero_loss_and_a_gradient(small_config, batch):
    model = LeanAlbertForMaskedLM(small_config())
    for mode in (True, False):
        model.train(mode).zero_grad()
        loss = model(batch["input_ids"], labels=torch.full_like(batch["input_ids"], -100)).loss
        loss.backward()
        assert loss.item() == 0
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_same_seed_gives_bit_equal_weights(small_config):
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(LeanAlbertForPreTraining(small_config()).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    "options", [{}, {"num_hidden_groups": 2, "num_inner_groups": 2, "sandwich_norm": True}]
)
def test_saving_the_last_layer_changes_no_gradient(small_config, batch, options):
    model = LeanAlbertForPreTraining(small_config(**options)).train()
    gradients = []
    for masked_positions_only in (True, False):
        model.zero_grad()
        model(**batch, masked_positions_only=masked_positions_only).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_hidden_states_are_whole_also_while_training(small_config, batch):
    output = LeanAlbertForPreTraining(small_config()).train()(**batch, output_hidden_states=True)
    assert output.hidden_states[-1].shape == (2, 12, 64)
    assert output.prediction_logits.shape == (3, 101)
