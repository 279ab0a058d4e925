"""``data-prep cluster``: clean, deduplicate and shard a corpus on many machines, by datatrove's executors.

Six stages, each of which begins when all tasks of the one before it are done:

1. clean       every task cleans its part files
2. signatures  MinHash signatures of what is left
3. buckets     documents that share a bucket, one task a bucket
4. clusters    which documents to remove: one of each group of near-duplicates stays, the first in order
5. shards      every task tokenizes what stays of its files
6. manifest    held-out set, tokenizer, manifest

What differs from `data-prep dedup`: of a group of near-duplicates the first stays and not the longest; a pair that
shares a bucket is believed without comparing the texts (similarity 0.8 is found in 92 of 100 cases and not in 99.8);
exact duplicates are near-duplicates; long spans that differing documents share are not cut: run ``data-prep dedup`` on
the parts before, if they matter. Copies that are as long as their originals and much alike are removed by both, and the
same documents stay (`tests/data_prep/test_cluster.py`).

The tokenizer is trained before, on a sample, with ``data-prep tokenizer``. All folders must be on a file system that
every machine sees. What was done is known from OUTPUT.work/logs: the same command goes on where an interrupted one
stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.corpus_folder import corpus_parts
from data_prep.errors import DataError
from data_prep.manifest import MANIFEST, Manifest, read_manifest
from data_prep.prepare import SHARDS_DIR
from data_prep.shard_step import HeldoutSettings
from data_prep.tokenizer import load_tokenizer

EXECUTORS = ("local", "slurm", "ray")
_BUCKETS, _HASHES_PER_BUCKET = (
    14,
    8,
)  # finds pairs of similarity 0.8 with probability 0.92, of 0.9 with 0.9996


@dataclass(frozen=True)
class ClusterSettings:
    """How the work is divided: ``tasks`` part files at a time, ``workers`` tasks at once (-1: all)."""

    executor: str = "local"
    tasks: int = 1
    workers: int = -1
    partition: str | None = None
    time: str = "24:00:00"
    skip: Collection[str] = ()
    request: Collection[str] = ()
    shingle_words: int = 5
    heldout: HeldoutSettings = field(default_factory=HeldoutSettings)

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise DataError(f"--executor {self.executor}: there are {', '.join(EXECUTORS)}")
        if self.executor == "slurm" and self.partition is None:
            raise DataError("--executor slurm needs --partition")


def run_on_cluster(
    input_dir: Path, output_dir: Path, tokenizer_dir: Path, settings: ClusterSettings
) -> Manifest | None:
    """Run all stages; the manifest, or None when they were only submitted (slurm).

    Raises ``DataError`` when datatrove is not installed, an input cannot be used, or the output is finished.
    """
    corpus_parts(input_dir)
    load_tokenizer(tokenizer_dir)
    if (output_dir / SHARDS_DIR / MANIFEST).exists():
        raise DataError(f"{output_dir} is finished already: name another folder or remove it")
    stages = cluster_stages(input_dir, output_dir, tokenizer_dir, settings)
    work = _work_of(output_dir)
    executor: Any = None
    for number, (name, pipeline, tasks) in enumerate(stages, 1):
        logs = work / "logs" / f"{number}-{name}"
        executor = _executor(settings, name, pipeline, tasks, logs, executor)
    executor.run()  # runs those it depends on first
    if settings.executor == "slurm":
        return None
    manifest = read_manifest(output_dir / SHARDS_DIR)
    shutil.rmtree(work, ignore_errors=True)
    return manifest


def cluster_stages(
    input_dir: Path, output_dir: Path, tokenizer_dir: Path, settings: ClusterSettings
) -> list[tuple[str, list[Any], int]]:
    """Name, datatrove pipeline and number of tasks of every stage, to be run one after the other."""
    try:
        from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter
        from datatrove.pipeline.dedup.minhash import MinhashConfig
        from datatrove.pipeline.readers import ParquetReader
        from datatrove.pipeline.writers import ParquetWriter

        from data_prep.cluster_steps import Clean, Finish, Signatures, WriteShards, prepare_output
    except ImportError as error:
        raise DataError(f'a cluster needs datatrove ({error}): pip install "artel[cluster]"') from error
    work, tasks = _work_of(output_dir), settings.tasks
    config = MinhashConfig(
        n_grams=settings.shingle_words, num_buckets=_BUCKETS, hashes_per_bucket=_HASHES_PER_BUCKET
    )
    paths = {name: str(work / name) for name in ("cleaned", "signatures", "buckets", "removed")}
    prepare_output(output_dir)
    return [
        (
            "clean",
            [
                ParquetReader(str(input_dir), glob_pattern="part-*.parquet"),
                Clean(settings.skip, settings.request),
                ParquetWriter(paths["cleaned"]),
            ],
            tasks,
        ),
        ("signatures", [ParquetReader(paths["cleaned"]), Signatures(paths["signatures"], config)], tasks),
        ("buckets", [MinhashDedupBuckets(paths["signatures"], paths["buckets"], config=config)], _BUCKETS),
        ("clusters", [MinhashDedupCluster(paths["buckets"], paths["removed"], config=config)], 1),
        (
            "shards",
            [
                ParquetReader(paths["cleaned"]),
                MinhashDedupFilter(paths["removed"]),
                WriteShards(output_dir, tokenizer_dir, settings.heldout),
            ],
            tasks,
        ),
        ("manifest", [Finish(output_dir, tokenizer_dir, settings.heldout)], 1),
    ]


def _executor(
    settings: ClusterSettings, name: str, pipeline: list[Any], tasks: int, logs: Path, depends: Any
) -> Any:
    common = {"tasks": tasks, "workers": settings.workers, "logging_dir": str(logs), "depends": depends}
    if settings.executor == "slurm":
        from datatrove.executor import SlurmPipelineExecutor

        return SlurmPipelineExecutor(
            pipeline, time=settings.time, partition=settings.partition, job_name=f"artel-{name}", **common
        )
    if settings.executor == "ray":
        from datatrove.executor import RayPipelineExecutor

        return RayPipelineExecutor(pipeline, **common)
    from datatrove.executor import LocalPipelineExecutor

    return LocalPipelineExecutor(pipeline, **common)


def _work_of(output_dir: Path) -> Path:
    return output_dir.resolve().parent / f"{output_dir.name}.work"
