"""A network as peers train it, in the form that people get: as a Hugging Face model."""

from __future__ import annotations

import torch

from model.configuration_lean_albert import LeanAlbertConfig
from model.modeling_lean_albert import LeanAlbertForPreTraining
from model.network_lean_albert import LeanAlbertNetwork


def hugging_face_model(network: LeanAlbertNetwork) -> LeanAlbertForPreTraining:
    """The same weights, the matrices in the same memory, in a model that `save_pretrained` saves with its code."""
    with torch.device("meta"):
        model = LeanAlbertForPreTraining(LeanAlbertConfig(**network.config.fields()))
    model.load_state_dict(network.state_dict(), assign=True)
    model.tie_weights()
    return model
