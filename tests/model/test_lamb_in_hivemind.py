"""LAMB's state passes through hivemind's state averager unchanged."""

from __future__ import annotations

import copy

import pytest
import torch

from model import Lamb, LeanAlbertForMaskedLM, parameter_groups


@pytest.mark.parametrize("options", [{}, {"state_bits": 8, "min_8bit_size": 1}], ids=["fp32", "8 bits"])
def test_state_is_allocated_dumped_and_loaded_by_hivemind(small_config, batch, options):
    averager = pytest.importorskip("hivemind.optim.state_averager")
    serializer = pytest.importorskip("hivemind.utils").MSGPackSerializer
    model = LeanAlbertForMaskedLM(small_config())
    twin = copy.deepcopy(model)
    donor, newcomer = (Lamb(parameter_groups(m, 0.01), **options) for m in (model, twin))
    averager.initialize_optimizer_state_(donor)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
    for _ in range(2):
        donor.zero_grad()
        model.train()(batch["input_ids"], labels=batch["labels"]).loss.backward()
        donor.step()
    metadata, tensors = averager.dump_optimizer_state(donor)
    averager.initialize_optimizer_state_(newcomer)
    sent = serializer.loads(serializer.dumps(metadata))
    averager.load_optimizer_state(newcomer, sent, [tensor.clone() for tensor in tensors])
    for mine, theirs in zip(donor.state.values(), newcomer.state.values(), strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
