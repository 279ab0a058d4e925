"""The samples a peer trains on: its share of the run's text, in the length of the hour, where it left off.

The position is written to the cache folder after every global step and when the peer leaves, so a peer that was
killed reads again what never entered a global step, and one that left goes on with the next sample. A position that
cannot be read costs a warning and a fresh start.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_prep.errors import StreamStateError
from data_prep.manifest import read_manifest
from data_prep.masking import WholeWordMasker
from data_prep.remote_file import is_url
from data_prep.remote_shard import RemoteShard, remote_shards
from data_prep.shares import Shares
from data_prep.stream import Batch, TrainingStream, stream_seed
from data_prep.vocabulary import Vocabulary
from swarm.bundle import SHARDS_FOLDER, shard_paths
from swarm.clock import SwarmView
from swarm.spec import RunSpec

# so far behind the others, in epochs, a peer no longer reads what they have read
TOLERATED_LAG = 0.05
# Speeds are what peers say of themselves. A node of 16 GPUs is some hundred times as fast as the median of laptops: cut
# off here, it still gets nine tenths of the text beside twenty of them. Who lies has no more than that of it, and the
# others share the rest: without a limit nothing would be theirs, and all would read the same.
MOST_OF_THE_MEDIAN = 256.0

Warn = Callable[[str], None]


class Samples:
    """Micro-batches for the training loop.

    >>> samples = Samples(stream, spec, position_path, warn)                # doctest: +SKIP
    >>> batch = samples.next_batch(global_step)                             # doctest: +SKIP
    """

    def __init__(self, stream: TrainingStream, spec: RunSpec, path: Path, warn: Warn):
        self._stream, self._path, self._warn = stream, path, warn
        self._length = spec.data.length_schedule
        self._waited_before = 0.0
        self._missed = self._repeated = 0
        self._could_save = True
        self._resume()

    def next_batch(self, global_step: int) -> Batch:
        """The next micro-batch, of the length that samples of this global step have."""
        self._stream.sequence_length = self._length(global_step)
        return next(self._stream)

    @property
    def position(self) -> float:
        """How far in the text we are, in epochs."""
        return self._stream.position

    @property
    def batch_size(self) -> int:
        """Samples of the batches to come."""
        return self._stream.batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self._stream.batch_size = value

    def take_wait(self) -> float:
        """Seconds that the loop has waited for batches since this was last asked."""
        waited, self._waited_before = (
            self._stream.wait_seconds - self._waited_before,
            self._stream.wait_seconds,
        )
        return waited

    def keep_up(self, others: float, *, tolerance: float = TOLERATED_LAG) -> None:
        """After a global step: save the position, and go where the others are if we fell behind.

        :param others: their position, see `median_position`
        """
        if others > self._stream.position + tolerance:
            self._stream.catch_up(others)
        self._tell_of_servers()
        self.save()

    def join_others(self, others: float, global_step: int) -> None:
        """On arrival: what the others have read while we were not there is not ours any more."""
        self.keep_up(others, tolerance=0.0)
        self._stream.sequence_length = self._length(global_step)
        self._stream.read_ahead()

    def save(self) -> None:
        """Write the position of the next sample, atomically."""
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._stream.state_dict()), encoding="utf-8")
            os.replace(temporary, self._path)
        except OSError as error:
            if self._could_save:
                self._warn(f"the position in the text cannot be kept in {self._path}: {error.strerror}")
            self._could_save = False
        else:
            self._could_save = True

    def close(self) -> None:
        """Stop reading."""
        self._stream.close()

    def _resume(self) -> None:
        try:
            state: Any = json.loads(self._path.read_text(encoding="utf-8"))
            self._stream.load_state_dict(state)
        except FileNotFoundError:
            return
        except (OSError, ValueError, StreamStateError) as error:
            self._warn(
                f"the position in the text kept in {self._path} cannot be used ({error}): starting anew"
            )

    def _tell_of_servers(self) -> None:
        missed, repeated = self._stream.units_missed, self._stream.units_repeated
        if repeated > self._repeated:
            self._warn("the server of the text does not answer: training on text that is here already")
        elif missed > self._missed:
            self._warn("a shard cannot be read: going on with others")
        self._missed, self._repeated = missed, repeated


def open_samples(
    spec: RunSpec,
    vocabulary: Vocabulary,
    bundle: Path,
    cache_dir: Path,
    peer_id: str,
    speeds: Callable[[], Mapping[str, float]],
    *,
    batch_size: int,
    warn: Warn,
    rank: int = 0,
    ranks: int = 1,
) -> Samples:
    """The samples of one rank of this peer; raises `DataError` if the run's text cannot be used.

    :param speeds: of everyone who reads the text right now, see `reading_speeds`
    """
    shares = Shares(spec.seed, peer_id, speeds, rank=rank, ranks=ranks)
    stream = TrainingStream(
        _remote(spec, bundle, cache_dir) if is_url(spec.data.source) else shard_paths(bundle),
        WholeWordMasker(vocabulary),
        sequence_length=spec.data.sequence_length,
        batch_size=batch_size,
        seed=stream_seed(spec.seed, peer_id, rank),
        weights=spec.data.weights,
        sentence_pairs=spec.data.sentence_pairs,
        shares=shares,
        tell=warn,
    )
    path = cache_dir / "positions" / spec.run_id / f"{peer_id}-{rank}.json"
    return Samples(stream, spec, path, warn)


def reading_speeds(view: SwarmView) -> dict[str, float]:
    """Samples a second of everyone who is training, as far as they can be believed: the text is shared by them."""
    speeds = {
        peer: lease.samples_per_second
        for peer, lease in view.leases.items()
        if lease.state.contributes and not lease.departing
    }
    known = [speed for speed in speeds.values() if speed > 0]
    most = MOST_OF_THE_MEDIAN * statistics.median_low(known) if known else 0.0
    return {peer: min(speed, most) for peer, speed in speeds.items()}


def median_position(view: SwarmView, peer_id: str) -> float:
    """How far in the text the others are, in epochs; 0 if there are none."""
    positions = [
        lease.text_position
        for peer, lease in view.leases.items()
        if peer != peer_id and lease.state.contributes and lease.text_position
    ]
    return statistics.median(positions) if positions else 0.0


def _remote(spec: RunSpec, bundle: Path, cache_dir: Path) -> list[RemoteShard]:
    manifest = read_manifest(bundle / SHARDS_FOLDER)
    return remote_shards(manifest, f"{spec.data.source.rstrip('/')}/{SHARDS_FOLDER}", cache_dir / "shards")
