"""``data-prep import``: raw files of any kind to one corpus folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.builtin import iter_documents
from data_prep.corpus_folder import CorpusWriter, write_summary
from data_prep.damage import DamageReport
from data_prep.documents import Document
from data_prep.errors import DataError
from data_prep.folders import finished_folder
from data_prep.readers import Fields, HubName, read_file, read_hub, reader_of

BUILTIN, HUB = "builtin", "hf:"


def import_documents(
    inputs: Sequence[str],
    output_dir: str | Path,
    *,
    source: str | None = None,
    fields: Fields | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Read files, folders, ``hf:ID`` or ``builtin``; return the summary.

    Without ``source`` a document's source is the name of its folder, data set or corpus. Damaged places are
    reported in the summary and skipped. Raises ``DataError`` when an input does not exist, nobody reads its
    kind, or nothing at all could be read.
    """
    damage, counts = DamageReport(), Counter[str]()
    report = progress or (lambda _: None)
    files = [(name, path) for name in inputs for path in _files(name)]
    with finished_folder(Path(output_dir)) as folder, CorpusWriter(folder) as writer:
        for name, path in files:
            report(f"reading {path or name}")
            for document in _read(name, path, source, fields or Fields(), damage):
                document = _nameable(document)
                writer.write(document)
                counts[document.source] += 1
        if not writer.documents:
            raise DataError(f"nothing could be read from {', '.join(inputs)}: {_first_reason(damage)}")
        return write_summary(
            folder,
            "import",
            documents=writer.documents,
            sources=dict(sorted(counts.items())),
            damage=damage.as_json(),
        )


def _nameable(document: Document) -> Document:
    """Names in old archives and on disks need not be Unicode; what is written must."""
    source, name = (text.encode("utf-8", "replace").decode() for text in (document.source, document.id))
    return Document(document.text, source, name)


def _first_reason(damage: DamageReport) -> str:
    if not damage.places:
        return "there is no text in it"
    place = damage.places[0]
    return f"{place['file']}, {place['position']}: {place['reason']}"


def _files(name: str) -> list[Path | None]:
    if name == BUILTIN or name.startswith(HUB):
        return [None]
    path = Path(name)
    if path.is_dir():
        found: list[Path | None] = [file for file in sorted(path.rglob("*")) if _is_text(file)]
        if not found:
            raise DataError(f"{path} holds no file that can be imported")
        return found
    if not path.is_file():
        raise DataError(f"{path} does not exist: give files, folders, hf:ID or {BUILTIN}")
    reader_of(path)  # told now, and not after the hours that the files before it take
    return [path]


def _is_text(path: Path) -> bool:
    kinds = (".xml", ".jsonl", ".ndjson", ".parquet", ".txt", ".zip", ".tar", ".tgz")
    return path.is_file() and any(suffix.lower() in kinds for suffix in path.suffixes[-2:])


def _read(
    name: str, path: Path | None, source: str | None, fields: Fields, damage: DamageReport
) -> Iterator[Document]:
    if path is not None:
        return read_file(path, source or path.resolve().parent.name, fields, damage)
    if name == BUILTIN:
        return iter_documents()
    hub = HubName.parse(name[len(HUB) :])
    return read_hub(hub, source or Path(hub.dataset).name, fields, damage)
