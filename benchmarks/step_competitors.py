"""The models that take turns in `benchmarks.train_step`: of equal width, depth, vocabulary and intermediate size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import AlbertConfig, AlbertForPreTraining, ModernBertConfig, ModernBertForMaskedLM

from model import LeanAlbertConfig, LeanAlbertForPreTraining
from model.training_step import compile_layers

VOCABULARY, HEAD_SIZE, EMBEDDING = 32000, 64, 128
ALBERT, MODERN, LEAN = "HF ALBERT", "ModernBERT", "LeanALBERT"
ALBERT_SDPA = f"{ALBERT}, sdpa"

Models = dict[str, Callable[[], torch.nn.Module]]


def lean(
    hidden: int, layers: int, *, attention: str = "sdpa", gated: bool = True
) -> LeanAlbertForPreTraining:
    config = LeanAlbertConfig(
        vocab_size=VOCABULARY,
        embedding_size=EMBEDDING,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // HEAD_SIZE,
        intermediate_size=4 * hidden,
        hidden_act_gated=gated,
        attn_implementation=attention,
    )
    return LeanAlbertForPreTraining(config)


def albert(hidden: int, layers: int, attention: str) -> torch.nn.Module:
    config = AlbertConfig(
        vocab_size=VOCABULARY,
        embedding_size=EMBEDDING,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // HEAD_SIZE,
        intermediate_size=4 * hidden,
        attn_implementation=attention,
    )
    return AlbertForPreTraining(config)


def modern_bert(hidden: int, layers: int, attention: str = "sdpa") -> torch.nn.Module:
    config = ModernBertConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // HEAD_SIZE,
        intermediate_size=4 * hidden,
        max_position_embeddings=512,
        pad_token_id=0,
        attn_implementation=attention,
    )
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
