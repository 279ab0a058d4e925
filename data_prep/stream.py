"""The training stream: an endless, resumable iterator of masked batches.

Rows are ``[CLS] … [SEP]``, filled to the last token with documents separated by ``[SEP]``; the last document
of a row goes on in the next. Sources are mixed by weight, row by row. Readers that share their text cover it
together (`shares.py`). ``state_dict`` is the position after
the last batch handed out, whatever a background thread has read ahead, so a stream that loads it goes on
with the next sample. ``batch_size`` and ``sequence_length`` may change between batches.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_prep.errors import DataError, ShardError, StreamStateError
from data_prep.flow import DocumentFlow
from data_prep.masking import WholeWordMasker
from data_prep.pairs import PairFlow, pair_row
from data_prep.prefetch import Prefetcher
from data_prep.seeds import stable_hash, stream_seed
from data_prep.shards import Shard, ShardReader
from data_prep.shares import Shares
from data_prep.walk import Cursor, Walk
from data_prep.windows import Windows

__all__ = ["Batch", "TrainingStream", "stream_seed"]

Batch = dict[str, torch.Tensor]
ALL = "all"  # the one mixture component of a stream without weights
_LEAST_LENGTH = 8
_MOST = 1 << 53  # a position beyond is damaged: it would not even be a float


class TrainingStream:
    """Batches of ``input_ids``, ``attention_mask``, ``labels``: int64 [batch_size, sequence_length].

    ``shards`` are paths, or objects such as those of ``remote_shards``. ``weights`` gives each source's share of
    the rows; without it, sources are mixed by their size. ``seed`` decides order and masks: take it from
    ``stream_seed``. With ``shares`` the order is that of all readers who share the text, and this one takes what
    is its own. With ``sentence_pairs`` rows are ``[CLS] A [SEP] B [SEP]``, and batches also have
    ``token_type_ids`` [batch_size, sequence_length] and ``sentence_order_label`` [batch_size]. ``tell`` is called
    from the thread that reads ahead when it must wait because nothing can be read.

    Raises ``ShardError`` for unusable shards.

    >>> seed = stream_seed(0, peer_id)
    >>> stream = TrainingStream(paths, masker, sequence_length=128, batch_size=8, seed=seed)
    >>> batch = next(stream)
    >>> stream.batch_size = 16
    >>> position = stream.state_dict()
    >>> stream.close()
    """

    def __init__(
        self,
        shards: Sequence[str | Path | Shard],
        masker: WholeWordMasker,
        *,
        sequence_length: int,
        batch_size: int,
        seed: int,
        weights: Mapping[str, float] | None = None,
        sentence_pairs: bool = False,
        shares: Shares | None = None,
        prefetch: int = 2,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._masker, self._seed, self._prefetch, self._shares = masker, seed, prefetch, shares
        self._sequence_length, self._batch_size = _checked(sequence_length, batch_size)
        opened = [ShardReader(shard) if isinstance(shard, str | Path) else shard for shard in shards]
        self._shards = sorted(opened, key=lambda shard: shard.name)
        _check_vocabulary(self._shards, masker)
        self._weights = _normalized(weights, self._shards)
        self._stopping, self._tell = threading.Event(), tell
        self._flows = {name: self._open_flow(name, sentence_pairs) for name in self._weights}
        self._largest = max(self._flows, key=lambda name: (self._flows[name].windows.walk.tokens, name))
        self._fingerprint = _fingerprint(self._shards, self._weights, sentence_pairs, shares)
        self._rows = dict.fromkeys(self._weights, 0)
        self._prefetcher: Prefetcher[tuple[Batch, dict[str, Any]]] | None = None
        self._closed = False
        self._consumed = self._position()
        self.wait_seconds = 0.0

    def _open_flow(self, name: str, sentence_pairs: bool) -> DocumentFlow | PairFlow:
        mine = [shard for shard in self._shards if name in (ALL, shard.source)]
        seed = stable_hash(self._seed, name)
        # a seed of the order's own: the text of other readers is shuffled and masked differently
        order_seed = stable_hash("artel order", self._shares.run_seed, name) if self._shares else seed
        windows = Windows(Walk(mine, order_seed, self._shares), self._stopping, self._tell)
        if sentence_pairs:
            return PairFlow(windows, seed=seed)
        return DocumentFlow(windows, seed=seed, separator_id=self._masker.sep_id)

    @property
    def batch_size(self) -> int:
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self._reshape(self._sequence_length, value)

    @property
    def sequence_length(self) -> int:
        return self._sequence_length

    @sequence_length.setter
    def sequence_length(self, value: int) -> None:
        self._reshape(value, self._batch_size)

    @property
    def samples(self) -> int:
        """Rows handed out since the stream began."""
        return sum(self._consumed["rows"].values())

    @property
    def units_missed(self) -> int:
        """Pieces of text passed over because a server did not answer."""
        return sum(flow.windows.units_missed for flow in self._flows.values())

    @property
    def units_repeated(self) -> int:
        """Pieces of text read once more because no other could be read."""
        return sum(flow.windows.units_repeated for flow in self._flows.values())

    @property
    def position(self) -> float:
        """Epochs walked of the source with the most text."""
        return self._flows[self._largest].windows.walk.position(self._consumed["cursors"][self._largest])

    def catch_up(self, position: float) -> None:
        """Go on with text that lies no earlier than `position`: what others have read while we were away.

        What is in hand is finished first. Other sources follow in proportion to their weights.
        """
        if position > self.position:
            largest = self._flows[self._largest].windows.walk.tokens / self._weights[self._largest]
            self._rewind(self._consumed)
            for name, flow in self._flows.items():
                pace = largest * self._weights[name] / flow.windows.walk.tokens
                flow.windows.catch_up(position * pace)
            self._consumed = self._position()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._closed:
            raise DataError("the training stream is closed")
        started = time.perf_counter()
        self.read_ahead()
        batch, self._consumed = self._prefetcher.get() if self._prefetcher else self._produce()
        self.wait_seconds += time.perf_counter() - started
        return batch

    def read_ahead(self) -> None:
        """Begin to make the next batches in the background, before they are asked for."""
        if self._prefetch and self._prefetcher is None:
            self._prefetcher = Prefetcher(self._produce, self._prefetch)

    def state_dict(self) -> dict[str, Any]:
        """Position of the next sample: numbers and strings only, so it can be stored as JSON."""
        cursors = {name: asdict(cursor) for name, cursor in self._consumed["cursors"].items()}
        return {
            "seed": self._seed,
            "shards": self._fingerprint,
            "rows": dict(self._consumed["rows"]),
            "cursors": cursors,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken. ``StreamStateError`` if it was taken of other shards or seed."""
        try:
            same = (state["seed"], state["shards"]) == (self._seed, self._fingerprint)
            cursors = {name: _cursor(state["cursors"][name]) for name in self._flows}
            rows = {name: _number(state["rows"][name]) for name in self._flows}
            for name, flow in self._flows.items():
                _check_units(cursors[name], flow.windows.walk.units)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StreamStateError(f"not a position of a training stream: {error!r}") from error
        if not same:
            raise StreamStateError(
                "the position belongs to other shards, weights or seed: start a new stream"
            )
        self._rewind({"rows": rows, "cursors": cursors})

    def close(self) -> None:
        """Stop reading ahead and let go of the files."""
        if not self._closed:
            self._closed = True
            self._stop_prefetching()
            for shard in self._shards:
                shard.close()

    def __enter__(self) -> TrainingStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reshape(self, sequence_length: int, batch_size: int) -> None:
        if (sequence_length, batch_size) != (self._sequence_length, self._batch_size):
            checked = _checked(sequence_length, batch_size)
            self._stop_prefetching()
            self._sequence_length, self._batch_size = checked
            self._rewind(self._consumed)

    def _position(self) -> dict[str, Any]:
        return {
            "rows": dict(self._rows),
            "cursors": {name: flow.windows.cursor for name, flow in self._flows.items()},
        }

    def _rewind(self, position: dict[str, Any]) -> None:
        self._stop_prefetching()
        self._rows = dict(position["rows"])
        for name, flow in self._flows.items():
            flow.windows.cursor = position["cursors"][name]
        self._consumed = self._position()

    def _stop_prefetching(self) -> None:
        if self._prefetcher is not None:
            self._stopping.set()  # ends a wait for a server that is away
            self._prefetcher.stop()
            self._prefetcher = None
            self._stopping.clear()

    def _produce(self) -> tuple[Batch, dict[str, Any]]:
        # seeded by position, so masks too go on where they stopped
        rng = np.random.default_rng([self._seed, sum(self._rows.values()), 2])
        rows = [self._next_row() for _ in range(self._batch_size)]
        ids = np.stack([row["input_ids"] for row in rows])
        input_ids, labels = self._masker(ids, rng)
        batch = {
            "input_ids": input_ids,
            "attention_mask": (ids != self._masker.pad_id).astype(np.int64),
            "labels": labels,
            **{key: np.stack([row[key] for row in rows]) for key in rows[0] if key != "input_ids"},
        }
        return {key: torch.from_numpy(array) for key, array in batch.items()}, self._position()

    def _next_row(self) -> dict[str, np.ndarray]:
        name = self._next_source()
        self._rows[name] += 1
        flow, masker = self._flows[name], self._masker
        if isinstance(flow, DocumentFlow):
            return {"input_ids": next_row(flow, self._sequence_length, masker.cls_id, masker.sep_id)}
        first, second, swapped = flow.take(self._sequence_length)
        ids, types = pair_row(
            (first, second),
            self._sequence_length,
            cls_id=masker.cls_id,
            sep_id=masker.sep_id,
            pad_id=masker.pad_id,
        )
        return {
            "input_ids": ids,
            "token_type_ids": types,
            "sentence_order_label": np.asarray(swapped, dtype=np.int64),
        }

    def _next_source(self) -> str:
        """The source furthest behind its share: exact proportions at every moment, no state beyond counts."""
        total = sum(self._rows.values()) + 1
        return max(self._weights, key=lambda name: self._weights[name] * total - self._rows[name])


def next_row(flow: DocumentFlow, length: int, cls_id: int, sep_id: int) -> np.ndarray:
    """``[CLS]``, ``length - 2`` ids of the flow, ``[SEP]``, as int32."""
    row = np.empty(length, dtype=np.int32)
    row[0], row[-1] = cls_id, sep_id
    row[1:-1] = flow.take(length - 2)
    flow.skip_separator()  # the row's own end already separates
    return row


def _checked(sequence_length: int, batch_size: int) -> tuple[int, int]:
    if sequence_length < _LEAST_LENGTH or batch_size < 1:
        raise DataError(
            f"sequence_length must be at least {_LEAST_LENGTH} and batch_size at least 1, "
            f"not {sequence_length} and {batch_size}"
        )
    return sequence_length, batch_size


def _check_vocabulary(shards: Sequence[Shard], masker: WholeWordMasker) -> None:
    if not shards:
        raise ShardError("no shards given: nothing to train on")
    for shard in shards:
        if shard.vocab_size != masker.vocab_size:
            raise ShardError(
                f"{shard.name} was written with a vocabulary of {shard.vocab_size}, the tokenizer has "
                f"{masker.vocab_size}: use the tokenizer the shards were written with"
            )


def _normalized(weights: Mapping[str, float] | None, shards: Sequence[Shard]) -> dict[str, float]:
    if not weights:
        return {ALL: 1.0}
    check_weights(weights, {shard.source for shard in shards})
    kept = {name: float(weight) for name, weight in sorted(weights.items()) if weight}
    return {name: weight / sum(kept.values()) for name, weight in kept.items()}


def check_weights(weights: Mapping[str, float], present: Collection[str]) -> None:
    """Raise ``DataError`` unless the weights name sources that there are, and can be shares."""
    if unknown := sorted(set(weights) - set(present)):
        raise DataError(
            f"weights name sources without shards: {', '.join(unknown)}; there are {', '.join(sorted(present))}"
        )
    if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
        raise DataError(f"weights must be positive numbers, not {dict(weights)}")


def _fingerprint(
    shards: Sequence[Shard], weights: Mapping[str, float], sentence_pairs: bool, shares: Shares | None
) -> str:
    files = [f"{shard.name}:{len(shard)}:{shard.size}" for shard in shards]
    kind = "pairs" if sentence_pairs else "rows"
    order = f"shared {shares.run_seed}" if shares else "own"
    return f"{stable_hash(*files, str(sorted(weights.items())), kind, order):016x}"


def _check_units(cursor: Cursor, units: int) -> None:
    if max(cursor.units, default=0) >= units:
        raise ValueError(f"there are {units} units, not {max(cursor.units) + 1}")


def _cursor(fields: Mapping[str, Any]) -> Cursor:
    """Of JSON: numbers are checked, because a position file may be damaged anywhere."""
    numbers = {name: _number(value) for name, value in fields.items() if name != "units"}
    return Cursor(**numbers, units=tuple(_number(unit) for unit in fields["units"]))


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise ValueError(f"{value!r} is no count")
    return value
