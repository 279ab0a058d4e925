"""What a published RuLeanALBERT's config.json may say, checked before it is believed.

Only what the checkpoint's tensors do not show is taken from it. A value that no model can have raises
`CheckpointError` naming its key; one that the tensors contradict is listed by `contradictions`, because a
config.json of another checkpoint is the likeliest mistake, and the tensors win.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from model.activation_lean_albert import activation_function
from model.configuration_lean_albert import LeanAlbertConfig

MOST_LAYERS = 10_000


class CheckpointError(ValueError):
    """The checkpoint or its configuration cannot be converted; the message says what and why."""


def _whole(value: object, most: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _above_zero(value: Any) -> bool:
    return _number(value) and value > 0


def _fraction(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _token(value: Any) -> bool:
    return value is None or value == 0 or _whole(value)


def _activation(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(activation_function(value))
    except ValueError:
        return False


Rule = tuple[Callable[[Any], bool], str]
COUNT: Rule = (_whole, "a whole number from 1 on")
FRACTION: Rule = (_fraction, "a number from 0 to 1")
TOKEN: Rule = (_token, "a token's number or null")
POSITIVE: Rule = (_above_zero, "a number above 0")
TAKEN_OVER: dict[str, Rule] = {
    "num_attention_heads": COUNT,
    "num_hidden_layers": (
        lambda value: _whole(value, MOST_LAYERS),
        f"a whole number from 1 to {MOST_LAYERS}",
    ),
    "hidden_act": (_activation, "an activation that is known ('gelu_fused' is the published one)"),
    "layer_norm_eps": POSITIVE,
    "rotary_embedding_base": POSITIVE,
    "max_position_embeddings": COUNT,
    "hidden_dropout_prob": FRACTION,
    "attention_probs_dropout_prob": FRACTION,
    "classifier_dropout_prob": FRACTION,
    "initializer_range": (lambda value: value is None or _above_zero(value), "a number above 0 or null"),
    "pad_token_id": TOKEN,
    "bos_token_id": TOKEN,
    "eos_token_id": TOKEN,
}
# they decide between two ways of sharing that the tensors allow
SHARING: dict[str, Rule] = {
    "share_large_matrices": (
        lambda value: isinstance(value, bool) or _token(value),
        "true, false or a count",
    ),
    "num_inner_matrices": (_token, "a count"),
}
UNSUPPORTED = {
    "block_size": "block-sparse matrices",
    "weight_layout": "block-sparse matrices",
    "reversible": "reversible layers",
}
SHOWN_BY_TENSORS = (
    "hidden_size",
    "intermediate_size",
    "embedding_size",
    "num_hidden_groups",
    "num_inner_groups",
    "hidden_act_gated",
    "sandwich_norm",
    "position_embedding_type",
    "adapter_dim",
    "lowrank_dim",
)


def taken_over(published: Mapping[str, Any]) -> dict[str, Any]:
    """The part of config.json that goes into our configuration; raises CheckpointError for a value out of range."""
    for key, meaning in UNSUPPORTED.items():
        if published.get(key):
            raise CheckpointError(
                f"config.json: {key} {published[key]!r} means {meaning}, which are not supported"
            )
    for key, (holds, wanted) in {**TAKEN_OVER, **SHARING}.items():
        if key in published and not holds(published[key]):
            raise CheckpointError(f"config.json: {key} is {published[key]!r}, but must be {wanted}")
    return {key: published[key] for key in TAKEN_OVER if key in published}


def contradictions(config: LeanAlbertConfig, published: Mapping[str, Any]) -> list[str]:
    """What config.json says otherwise than the checkpoint's tensors, a phrase each."""
    return [
        f"{key} {published[key]!r} (found: {getattr(config, key)!r})"
        for key in SHOWN_BY_TENSORS
        if published.get(key) is not None and published[key] != getattr(config, key)
    ]
