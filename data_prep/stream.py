"""The training stream: an endless, resumable iterator of masked batches.

Rows are ``[CLS] … [SEP]``, filled to the last token with documents separated by ``[SEP]``; the last document
of a row goes on in the next. Sources are mixed by weight, row by row. ``state_dict`` is the position after
the last batch handed out, whatever a background thread has read ahead, so a stream that loads it goes on
with the next sample. ``batch_size`` and ``sequence_length`` may change between batches.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_prep.errors import DataError, ShardError, StreamStateError
from data_prep.flow import Cursor, DocumentFlow
from data_prep.masking import WholeWordMasker
from data_prep.pairs import PairFlow, pair_row
from data_prep.place import Place
from data_prep.prefetch import Prefetcher
from data_prep.seeds import stable_hash, stream_seed
from data_prep.shards import ShardReader

__all__ = ["Batch", "TrainingStream", "stream_seed"]

Batch = dict[str, torch.Tensor]
ALL = "all"  # the one mixture component of a stream without weights
_LEAST_LENGTH = 8


class TrainingStream:
    """Batches of ``input_ids``, ``attention_mask``, ``labels``: int64 [batch_size, sequence_length].

    ``weights`` gives each source's share of the rows; without it, sources are mixed by their size. ``seed``
    decides order and masks: take it from ``stream_seed``. Shards may be URLs, read by ranges into
    ``cache_dir``. With ``sentence_pairs`` rows are ``[CLS] A [SEP] B [SEP]``, and batches also have
    ``token_type_ids`` [batch_size, sequence_length] and ``sentence_order_label`` [batch_size]. With ``place``
    all peers of a run share one order of the text and begin at different places of it.

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
        shard_paths: Sequence[str | Path],
        masker: WholeWordMasker,
        *,
        sequence_length: int,
        batch_size: int,
        seed: int,
        weights: Mapping[str, float] | None = None,
        sentence_pairs: bool = False,
        place: Place | None = None,
        cache_dir: str | Path | None = None,
        prefetch: int = 2,
    ) -> None:
        self._masker, self._seed, self._prefetch, self._place = masker, seed, prefetch, place
        self._sequence_length, self._batch_size = _checked(sequence_length, batch_size)
        self._readers = [ShardReader(path, cache_dir) for path in sorted(shard_paths, key=_file_name)]
        _check_vocabulary(self._readers, masker)
        self._weights = _normalized(weights, self._readers)
        self._stopping = threading.Event()
        self._flows = {name: self._open_flow(name, sentence_pairs) for name in self._weights}
        self._fingerprint = _fingerprint(self._readers, self._weights, sentence_pairs, place)
        self._rows = dict.fromkeys(self._weights, 0)
        self._prefetcher: Prefetcher[tuple[Batch, dict[str, Any]]] | None = None
        self._closed = False
        self._consumed = self._position()
        self.wait_seconds = 0.0

    def _open_flow(self, name: str, sentence_pairs: bool) -> DocumentFlow | PairFlow:
        readers = [reader for reader in self._readers if name in (ALL, reader.source)]
        seed = stable_hash(self._seed, name)
        order = self._place.order(readers, name) if self._place else None
        if sentence_pairs:
            return PairFlow(readers, seed=seed, order=order, stopping=self._stopping)
        separator = self._masker.sep_id
        return DocumentFlow(readers, seed=seed, separator_id=separator, order=order, stopping=self._stopping)

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
    def windows_missed(self) -> int:
        """Stretches of text passed over because a server did not answer."""
        return sum(flow.windows_missed for flow in self._flows.values())

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._closed:
            raise DataError("the training stream is closed")
        started = time.perf_counter()
        if self._prefetch and self._prefetcher is None:
            self._prefetcher = Prefetcher(self._produce, self._prefetch)
        batch, self._consumed = self._prefetcher.get() if self._prefetcher else self._produce()
        self.wait_seconds += time.perf_counter() - started
        return batch

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
            cursors = {name: Cursor(**state["cursors"][name]) for name in self._flows}
            rows = {name: int(state["rows"][name]) for name in self._flows}
        except (KeyError, TypeError, ValueError) as error:
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
            for reader in self._readers:
                reader.close()

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
            "cursors": {name: flow.cursor for name, flow in self._flows.items()},
        }

    def _rewind(self, position: dict[str, Any]) -> None:
        self._stop_prefetching()
        self._rows = dict(position["rows"])
        for name, flow in self._flows.items():
            flow.cursor = position["cursors"][name]
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


def _check_vocabulary(readers: Sequence[ShardReader], masker: WholeWordMasker) -> None:
    if not readers:
        raise ShardError("no shards given: nothing to train on")
    for reader in readers:
        if reader.vocab_size != masker.vocab_size:
            raise ShardError(
                f"{reader.path} was written with a vocabulary of {reader.vocab_size}, the tokenizer has "
                f"{masker.vocab_size}: use the tokenizer the shards were written with"
            )


def _normalized(weights: Mapping[str, float] | None, readers: Sequence[ShardReader]) -> dict[str, float]:
    if weights is None:
        return {ALL: 1.0}
    present = {reader.source for reader in readers}
    if unknown := sorted(set(weights) - present):
        raise DataError(
            f"weights name sources without shards: {', '.join(unknown)}; there are {sorted(present)}"
        )
    kept = {name: float(weight) for name, weight in sorted(weights.items()) if weight}
    if not kept or min(kept.values()) < 0:
        raise DataError(f"weights must be positive numbers, not {dict(weights)}")
    return {name: weight / sum(kept.values()) for name, weight in kept.items()}


def _fingerprint(
    readers: Sequence[ShardReader], weights: Mapping[str, float], sentence_pairs: bool, place: Place | None
) -> str:
    shards = [f"{reader.name}:{len(reader)}:{reader.size}" for reader in readers]
    kind = "pairs" if sentence_pairs else "rows"
    return f"{stable_hash(*shards, str(sorted(weights.items())), kind, str(place)):016x}"


def _file_name(path: str | Path) -> str:
    return str(path).rsplit("/", 1)[-1]
