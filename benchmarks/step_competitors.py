"""The models that take turns in `benchmarks.train_step`: of equal width, depth, vocabulary and intermediate size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AlbertConfig, AlbertForPreTraining, ModernBertConfig, ModernBertForMaskedLM

from model import LeanAlbertConfig, LeanAlbertForPreTraining
from model.training_step import compile_layers

VOCABULARY, HEAD_SIZE, EMBEDDING = 32000, 64, 128
ALBERT, MODERN, LEAN = "HF ALBERT", "ModernBERT", "LeanALBERT"
ALBERT_SDPA = f"{ALBERT}, sdpa"

Models = dict[str, Callable[[], torch.nn.Module]]


def shape(hidden: int, layers: int, attention: str) -> dict[str, Any]:
    """What is the same for all of them."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // HEAD_SIZE,
        "intermediate_size": 4 * hidden,
        "attn_implementation": attention,
    }


def lean(
    hidden: int, layers: int, *, attention: str = "sdpa", gated: bool = True
) -> LeanAlbertForPreTraining:
    config = LeanAlbertConfig(
        **shape(hidden, layers, attention), embedding_size=EMBEDDING, hidden_act_gated=gated
    )
    return LeanAlbertForPreTraining(config)


def albert(hidden: int, layers: int, attention: str) -> torch.nn.Module:
    return AlbertForPreTraining(AlbertConfig(**shape(hidden, layers, attention), embedding_size=EMBEDDING))


def modern_bert(hidden: int, layers: int, attention: str = "sdpa") -> torch.nn.Module:
    config = ModernBertConfig(**shape(hidden, layers, attention), max_position_embeddings=512, pad_token_id=0)
    return ModernBertForMaskedLM(config)


def competitors(hidden: int, layers: int, compiled: bool, skipped: Sequence[str]) -> Models:
    models: Models = {
        ALBERT_SDPA: lambda: albert(hidden, layers, "sdpa"),
        f"{ALBERT}, eager": lambda: albert(hidden, layers, "eager"),
        MODERN: lambda: modern_bert(hidden, layers),
        LEAN: lambda: lean(hidden, layers),
        f"{LEAN}, explicit attention": lambda: lean(hidden, layers, attention="eager"),
        f"{LEAN}, ungated": lambda: lean(hidden, layers, gated=False),
    }
    if compiled:
        models[f"{LEAN}, compiled"] = lambda: compiled_lean(hidden, layers)
    return {name: make for name, make in models.items() if not any(word in name for word in skipped)}


def compiled_lean(hidden: int, layers: int) -> torch.nn.Module:
    model = lean(hidden, layers)
    compile_layers(model)
    return model
