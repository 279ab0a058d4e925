"""Makes the run bundle's files on the coordinator's first start: tokenizer, held-out set and shards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from data_prep.builtin import iter_documents
from data_prep.corpus_folder import read_corpus
from data_prep.documents import Document
from data_prep.errors import DataError
from data_prep.heldout import check_heldout_tokenizer, load_heldout
from data_prep.manifest import Manifest, ShardEntry, read_manifest
from data_prep.prepare import prepare_corpus
from data_prep.remote_file import is_url
from data_prep.remote_prepared import fetch_prepared
from data_prep.remote_shard import remote_shards
from data_prep.shards import Shard, ShardReader, file_sha256
from data_prep.stream import check_weights
from data_prep.suitability import check_pairs
from data_prep.tokenizer import load_tokenizer
from swarm.bundle import (
    HELDOUT_NAME,
    MANIFEST_NAME,
    SHARDS_FOLDER,
    TOKENIZER_FOLDER,
    SignedManifest,
    file_digest,
    pack_bundle,
    parse_manifest,
)
from swarm.errors import BadInput, OperationFailed
from swarm.identity import Identity
from swarm.spec import RunSpec

BUILTIN = "builtin"
CORPUS_PARTS = "part-*.parquet"
_PARTS = (TOKENIZER_FOLDER, HELDOUT_NAME, SHARDS_FOLDER)
_FEW = 0.1  # of the text: so little of it in samples is told


def prepare_bundle(
    directory: Path,
    spec: RunSpec,
    base: Path,
    identity: Identity,
    say: Callable[[str], None],
    tokenizer: Path | None = None,
) -> SignedManifest:
    """The signed bundle of this run: the one that is there, checked, or a new one.

    :param base: folder that a relative `data.source` is relative to
    :param tokenizer: folder of the tokenizer that a new bundle must use; trained on the text without it
    :raises BadInput: `data.source` is neither `builtin`, nor a corpus folder, nor a prepared directory or its URL; or
        what it holds does not fit the spec or the tokenizer
    :raises OperationFailed: a file of an existing bundle was changed
    """
    if (directory / MANIFEST_NAME).is_file():
        return _reopen(directory, spec, identity)
    if directory.exists():  # unfinished: a manifest is written last
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    try:
        _fill(directory, spec, base, say, tokenizer)
        _check(directory, spec, say)
    except DataError as error:
        raise BadInput(f"data.source {spec.data.source}: {error}") from error
    return pack_bundle(directory, spec, identity)


def _fill(
    directory: Path, spec: RunSpec, base: Path, say: Callable[[str], None], tokenizer: Path | None
) -> None:
    source = base / Path(spec.data.source).expanduser()
    if spec.data.source == BUILTIN:
        say("preparing the built-in corpus (once)")
        _prepare(iter_documents(), directory, spec, say, tokenizer)
    elif is_url(spec.data.source):
        say(f"fetching what peers need to read {spec.data.source}")
        fetch_prepared(spec.data.source, directory)
    elif any(source.glob(CORPUS_PARTS)):
        say(f"preparing the documents in {source} (once)")
        _prepare(read_corpus(source), directory, spec, say, tokenizer)
    else:
        _copy_prepared(source, directory)
    if tokenizer is not None:
        _require_same_tokenizer(directory / TOKENIZER_FOLDER, tokenizer)


def _check(directory: Path, spec: RunSpec, say: Callable[[str], None]) -> None:
    """What of the spec depends on the text: better told here than by every peer."""
    manifest = read_manifest(directory / SHARDS_FOLDER)
    if file_sha256(directory / TOKENIZER_FOLDER / "tokenizer.json") != manifest.tokenizer_sha256:
        raise DataError(
            "its tokenizer is not the one that its shards were written with: run data-prep shard again"
        )
    if spec.data.weights:
        check_weights(spec.data.weights, {shard.source for shard in manifest.shards})
    check_heldout_tokenizer(directory / HELDOUT_NAME, manifest.tokenizer_sha256, manifest.vocab_size)
    length = load_heldout(directory / HELDOUT_NAME)["input_ids"].shape[1]
    if length > spec.model.max_position_embeddings:
        raise DataError(
            f"rows of the held-out set have {length} tokens, more than model.max_position_embeddings "
            f"({spec.model.max_position_embeddings}): make it anew with a smaller --sequence-length"
        )
    _check_samples(directory, spec, manifest, say)


def _check_samples(directory: Path, spec: RunSpec, manifest: Manifest, say: Callable[[str], None]) -> None:
    """Open the shards and, if samples are sentence pairs, see that the shortest and the longest can be made."""
    data = spec.data
    with tempfile.TemporaryDirectory() as cache, ExitStack() as opened:
        shards: Sequence[Shard]
        if is_url(data.source):
            shards = remote_shards(manifest, f"{data.source.rstrip('/')}/{SHARDS_FOLDER}", Path(cache))
        else:
            shards = [_checked_shard(directory / SHARDS_FOLDER, shard) for shard in manifest.shards]
        for shard in shards:
            opened.callback(shard.close)
        if not data.sentence_pairs:
            return
        sources = [source for source, weight in data.weights.items() if weight]
        shares = {length: check_pairs(shards, sources, length) for length in _lengths(spec)}
    for length, share in shares.items():
        if share < _FEW:
            say(
                f"only {share:.0%} of the text fits into sentence pairs of {length} tokens: the rest is passed over"
            )


def _checked_shard(folder: Path, entry: ShardEntry) -> ShardReader:
    shard = ShardReader(folder / entry.file)
    if file_sha256(folder / entry.file) != entry.sha256:
        raise DataError(f"{entry.file} is not the shard that its manifest lists: run data-prep shard again")
    return shard


def _lengths(spec: RunSpec) -> list[int]:
    schedule = spec.data.length_schedule
    return sorted({schedule(0), spec.data.sequence_length})


def _reopen(directory: Path, spec: RunSpec, identity: Identity) -> SignedManifest:
    signed = parse_manifest((directory / MANIFEST_NAME).read_bytes())
    manifest = signed.open()
    for file in manifest.files:
        path = directory / file.name
        if not path.is_file() or file_digest(path) != file.sha256:
            raise OperationFailed(
                f"{path} does not match the digest in {directory / MANIFEST_NAME}: restore it, "
                f"or delete {directory} to make the bundle anew"
            )
    if manifest.authority != identity.peer_id or manifest.run_id != spec.run_id:
        # the identity was replaced: same files, new signature, new join line
        return pack_bundle(directory, spec, identity)
    return signed


def _prepare(
    documents: Iterable[Document],
    directory: Path,
    spec: RunSpec,
    say: Callable[[str], None],
    tokenizer: Path | None,
) -> None:
    data = spec.data
    prepare_corpus(
        documents,
        directory,
        vocab_size=data.vocab_size,
        sequence_length=data.sequence_length,
        heldout_fraction=data.heldout_fraction,
        heldout_rows=data.heldout_rows,
        seed=spec.seed,
        tokenizer_dir=tokenizer,
        progress=say,
    )


def _require_same_tokenizer(theirs: Path, ours: Path) -> None:
    if load_tokenizer(theirs).get_vocab() != load_tokenizer(ours).get_vocab():
        raise BadInput(
            "the shards were made with another tokenizer than the checkpoint: "
            "give data.source the text or the shards that the run was started with"
        )


def _copy_prepared(source: Path, directory: Path) -> None:
    missing = [part for part in _PARTS if not (source / part).exists()]
    if missing:
        raise BadInput(
            f"data.source {source} has neither documents ({CORPUS_PARTS}) nor {missing[0]}: give `builtin`, a corpus "
            f"folder written by `data-prep import`, `clean` or `dedup`, a directory with {', '.join(_PARTS)} as "
            "`data-prep shard` writes it, or its URL"
        )
    for part in _PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, directory / part, dirs_exist_ok=True)
        else:
            shutil.copyfile(source / part, directory / part)
