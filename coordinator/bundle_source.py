"""Makes the run bundle's files on the coordinator's first start: tokenizer, held-out set and shards."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from data_prep.builtin import iter_documents
from data_prep.corpus_folder import read_corpus
from data_prep.documents import Document
from data_prep.prepare import prepare_corpus
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
    :raises BadInput: `data.source` is neither `builtin`, nor a corpus folder, nor a prepared directory, or a prepared
        directory with another tokenizer
    :raises OperationFailed: a file of an existing bundle was changed
    """
    if (directory / MANIFEST_NAME).is_file():
        return _reopen(directory, spec, identity)
    if directory.exists():  # unfinished: a manifest is written last
        shutil.rmtree(directory)
    source = base / Path(spec.data.source).expanduser()
    if spec.data.source == BUILTIN:
        say("preparing the built-in corpus (once)")
        _prepare(iter_documents(), directory, spec, say, tokenizer)
    elif any(source.glob(CORPUS_PARTS)):
        say(f"preparing the documents in {source} (once)")
        _prepare(read_corpus(source), directory, spec, say, tokenizer)
    else:
        if tokenizer is not None:
            _require_same_tokenizer(source / TOKENIZER_FOLDER, tokenizer)
        _copy_prepared(source, directory)
    return pack_bundle(directory, spec, identity)


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
            f"the shards in {theirs.parent} were made with another tokenizer than the checkpoint: "
            "give data.source the text or the shards that the run was started with"
        )


def _copy_prepared(source: Path, directory: Path) -> None:
    missing = [part for part in _PARTS if not (source / part).exists()]
    if missing:
        raise BadInput(
            f"data.source {source} has neither documents ({CORPUS_PARTS}) nor {missing[0]}: give `builtin`, a corpus "
            f"folder written by `data-prep import`, `clean` or `dedup`, or a directory with {', '.join(_PARTS)}"
        )
    directory.mkdir(parents=True, exist_ok=True)
    for part in _PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, directory / part, dirs_exist_ok=True)
        else:
            shutil.copyfile(source / part, directory / part)
