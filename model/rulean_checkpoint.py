"""What the state dict of a published RuLeanALBERT says: its structure, and its tensors under our names.

The keys and shapes decide; the configuration file is believed only for what they do not show (number of
layers and heads, activation, eps, dropout). In the published layout a shared matrix stands under every
pair of layers that uses it, so sharing is read off equal tensors. Nothing is dropped in silence: a key
without a place raises `CheckpointError` naming it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from model.configuration_lean_albert import LeanAlbertConfig
from model.published_config import CheckpointError, taken_over

LAYERS = "albert.transformer.layer_groups"
EMBEDDINGS = "albert.embeddings"
MATRIX_KEY = re.compile(
    rf"{re.escape(LAYERS)}\.(?P<group>\d+)\.layers\.(?P<inner>\d+)\.(?:attention|ffn)\."
    r"(?P<kind>dense_\w+)\.shared_matrix\.(?P<part>weight|lowrank_first|lowrank_second)"
)
POSITION_BUFFERS = (f"{EMBEDDINGS}.position_ids", f"{EMBEDDINGS}.token_type_ids")
DECODER_BIASES = ("predictions.bias", "predictions.decoder.bias")

State = Mapping[str, torch.Tensor]


def config_of(state: State, published: Mapping[str, Any]) -> LeanAlbertConfig:
    """Our configuration for `state`, with what only the `published` config.json can tell."""
    values = taken_over(published)
    groups, inner = _count(state, rf"{re.escape(LAYERS)}\.(\d+)\."), _count(state, r".*\.layers\.(\d+)\.")
    first = f"{LAYERS}.0.layers.0"
    h2o = _matrix(state, f"{first}.ffn.dense_h2o.shared_matrix.weight")
    i2h = _matrix(state, f"{first}.ffn.dense_i2h.shared_matrix.weight")
    vocab_size, embedding_size = _matrix(state, f"{EMBEDDINGS}.word_embeddings.weight").shape
    sets, inner_matrices = _sharing(state, groups, inner, published)
    positions = state.get(f"{EMBEDDINGS}.position_embeddings.weight")
    if positions is not None:
        values["max_position_embeddings"] = positions.shape[0]
    if (values.get("pad_token_id") or 0) >= vocab_size:
        raise CheckpointError(
            f"config.json: pad_token_id is {values['pad_token_id']}, but {vocab_size} are embedded"
        )
    try:
        return LeanAlbertConfig(
            **values,
            vocab_size=vocab_size,
            embedding_size=embedding_size,
            hidden_size=h2o.shape[0],
            intermediate_size=h2o.shape[1],
            hidden_act_gated=i2h.shape[0] == 2 * h2o.shape[1],
            num_hidden_groups=groups,
            num_inner_groups=inner,
            share_large_matrices=False if sets == groups * inner and inner_matrices == 1 else sets,
            num_inner_matrices=inner_matrices,
            adapter_dim=_rank(state, f"{first}.attention.dense_qkv.adapter_first"),
            lowrank_dim=_rank(state, f"{first}.attention.dense_qkv.shared_matrix.lowrank_first"),
            attn_qkv_bias=f"{first}.attention.dense_qkv.bias" in state,
            out_proj_bias=f"{first}.attention.dense_out.bias" in state,
            sandwich_norm=f"{first}.attention.sandwich_norm.weight" in state,
            position_embedding_type="rotary" if positions is None else "absolute",
            type_vocab_size=_matrix(state, f"{EMBEDDINGS}.token_type_embeddings.weight").shape[0],
            tie_word_embeddings=_is_tied(state),
        )
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"config.json and checkpoint do not fit together: {error}") from error


def renamed(state: State, config: LeanAlbertConfig) -> dict[str, torch.Tensor]:
    """The tensors of `state` under our names; raises CheckpointError if two that must be one differ."""
    result: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        name = _our_name(key, tensor, config)
        if name is None:
            continue
        if name in result and not torch.equal(result[name], tensor):
            raise CheckpointError(
                f"{key} must be the same tensor as another that became {name}, but it differs"
            )
        result[name] = tensor
    result.setdefault("predictions.decoder.weight", result[f"{EMBEDDINGS}.word_embeddings.weight"])
    return result


def _our_name(key: str, tensor: torch.Tensor, config: LeanAlbertConfig) -> str | None:
    if key in POSITION_BUFFERS:
        expected = torch.arange(tensor.numel()) if key.endswith("position_ids") else torch.zeros(())
        if not (tensor.flatten() == expected).all():
            raise CheckpointError(f"{key} is not the table of positions it should be")
        return None  # a constant, made anew when needed
    if key in DECODER_BIASES:
        return "predictions.decoder.bias"
    if match := MATRIX_KEY.fullmatch(key):
        pair = int(match["group"]) * config.num_inner_groups + int(match["inner"])
        return f"albert.transformer.matrices.{config.matrix_index(pair)}.{match['kind']}.{match['part']}"
    return key


def _count(state: State, pattern: str) -> int:
    found = {int(match[1]) for key in state if key.startswith(LAYERS) and (match := re.match(pattern, key))}
    if found != set(range(len(found))) or not found:
        raise CheckpointError(f"no complete numbering of {pattern!r} among the keys (found {sorted(found)})")
    return len(found)


def _matrix(state: State, key: str) -> torch.Tensor:
    if key not in state:
        raise CheckpointError(f"the checkpoint has no {key}: is it a RuLeanALBERT state dict?")
    if state[key].dim() != 2:
        raise CheckpointError(
            f"{key} has shape {tuple(state[key].shape)}: block-sparse matrices are not supported"
        )
    if not state[key].numel():
        raise CheckpointError(f"{key} has shape {tuple(state[key].shape)}: it is empty")
    return state[key]


def _rank(state: State, key: str) -> int:
    return state[key].shape[0] if key in state else 0


def _is_tied(state: State) -> bool:
    decoder = state.get("predictions.decoder.weight")
    return decoder is None or torch.equal(decoder, state[f"{EMBEDDINGS}.word_embeddings.weight"])


def _sharing(state: State, groups: int, inner: int, published: Mapping[str, Any]) -> tuple[int, int]:
    """(sets, matrices per set) of the big matrices: the fewest that the tensors allow.

    Where two ways come to the same number of matrices, the one that config.json names is taken.
    """
    pairs = groups * inner
    classes = _matrix_classes(state, groups, inner)
    claimed = (
        int(published.get("share_large_matrices") or pairs),
        int(published.get("num_inner_matrices") or 1),
    )
    candidates = [(sets, each) for sets in range(1, pairs + 1) for each in range(1, pairs // sets + 1)]
    candidates.sort(key=lambda sharing: (sharing[0] * sharing[1], sharing != claimed, sharing[1]))
    return next(sharing for sharing in candidates if _fits(classes, *sharing))


def _fits(classes: list[int], sets: int, each: int) -> bool:
    used: dict[int, int] = {}
    pairs = len(classes)
    return all(
        used.setdefault(pair * sets // pairs * each + pair % each, kind) == kind
        for pair, kind in enumerate(classes)
    )


def _matrix_classes(state: State, groups: int, inner: int) -> list[int]:
    """A number per pair of layers; equal numbers mean that all big matrices are equal."""
    pairs: list[dict[str, torch.Tensor]] = [{} for _ in range(groups * inner)]
    for key, tensor in state.items():
        if match := MATRIX_KEY.fullmatch(key):
            pairs[int(match["group"]) * inner + int(match["inner"])][f"{match['kind']}.{match['part']}"] = (
                tensor
            )
    representatives: list[dict[str, torch.Tensor]] = []
    classes = []
    for pair in pairs:
        equal = (i for i, other in enumerate(representatives) if _all_equal(pair, other))
        index = next(equal, len(representatives))
        if index == len(representatives):
            representatives.append(pair)
        classes.append(index)
    return classes


def _all_equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
