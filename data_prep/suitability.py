"""Whether shards can give the samples that a run asks for: found out when it is set up, not by its peers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain

import numpy as np

from data_prep.errors import ShardError
from data_prep.pairs import cut_pairs
from data_prep.shards import Shard

_LOOKED_AT = 16  # blocks of each component, about a million tokens
_ROOM_TAKEN = 3  # [CLS] and two [SEP]


def check_pairs(shards: Sequence[Shard], sources: Collection[str], length: int) -> float:
    """The least share of a component's text that sentence pairs of ``length`` tokens take up, by a look at it.

    ``sources`` are the mixture's components; without any, all shards together are the one there is. Raises
    ``ShardError`` when a component gives no pair at all: a stream over it would have nothing to hand out.
    """
    names: Iterable[str | None] = sorted(sources) or [None]
    return min(_share_of(name, [s for s in shards if name in (None, s.source)], length) for name in names)


def _share_of(name: str | None, shards: Sequence[Shard], length: int) -> float:
    blocks = list(chain.from_iterable(((shard, index) for index in range(len(shard))) for shard in shards))
    chosen = np.linspace(0, len(blocks) - 1, min(_LOOKED_AT, len(blocks))).astype(int)
    used = tokens = 0
    for shard, index in (blocks[number] for number in chosen):
        for document in shard.block(index).documents():
            pairs = cut_pairs(document.input_ids, document.sentence_ends, length - _ROOM_TAKEN)
            used += sum(len(first) + len(second) for first, second in pairs)
            tokens += len(document.input_ids)
    if not used:
        where = "the text" if name is None else f"source {name!r}"
        raise ShardError(
            f"sentence pairs need documents with two sentences that fit into {length} tokens together, and {where} "
            "has none: give longer sequences or leave sentence_pairs out"
        )
    return used / tokens
