"""``data-prep dedup``: exact documents, near-duplicates, shared spans; deterministic and resumable.

Which copy survives: the one with most words; among equals the one that comes first in the corpus. Text that
several surviving documents share is kept in the first and cut out of the others.

Word hashes, shingles and signatures of every part are kept in ``OUTPUT.work`` until the step is done, under
the part's digest, so an interrupted run goes on where it was. They are memory-mapped: about 20 bytes a word
on disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.corpus_folder import CorpusWriter, corpus_parts, read_corpus, read_texts, write_summary
from data_prep.documents import Document
from data_prep.errors import DataError
from data_prep.folders import finished_folder
from data_prep.near_duplicates import NearSettings, duplicates, signatures
from data_prep.shards import file_sha256
from data_prep.shared_spans import SPAN_WORDS, check_span_words, cut_words, repeated_words
from data_prep.shingles import HashedTexts, hash_words, shingle

_LEAST_WORDS = 5
_SAMPLES = 10
Progress = Callable[[str], None]


@dataclass(frozen=True)
class DedupSettings:
    """``span_words`` of 0 leaves partial overlaps alone; ``near`` of None near-duplicates."""

    near: NearSettings | None = field(default_factory=NearSettings)
    span_words: int = SPAN_WORDS

    def __post_init__(self) -> None:
        if self.span_words:
            check_span_words(self.span_words)


@dataclass
class DedupResult:
    """Per document: the survivor that replaces it or -1; and the words to cut of those that stay."""

    texts: HashedTexts
    replaced_by: np.ndarray
    exact: int
    near: int
    covered: np.ndarray
    samples: list[tuple[int, int]] = field(default_factory=list)


def deduplicate(
    texts: HashedTexts, shingles: HashedTexts, sketch: np.ndarray, settings: DedupSettings
) -> DedupResult:
    """Decide what goes; nothing is read or written here."""
    lengths = np.diff(texts.offsets)
    order = np.lexsort((np.arange(len(texts)), -lengths))
    rank = np.empty(len(texts), dtype=np.int64)
    rank[order] = np.arange(len(texts))
    replaced_by = _exact_duplicates(texts, order)
    exact = int((replaced_by >= 0).sum())
    if settings.near is not None:
        left = np.flatnonzero(replaced_by < 0)
        found = duplicates(_select(shingles, left), sketch[left], rank[left], settings.near)
        replaced_by[left[found >= 0]] = left[found[found >= 0]]
    near = int((replaced_by >= 0).sum()) - exact
    covered = np.zeros(len(texts.words), dtype=bool)
    if settings.span_words:
        left = np.flatnonzero(replaced_by < 0)
        covered[_word_positions(texts, left)] = repeated_words(_select(texts, left), settings.span_words)
    removed = np.flatnonzero(replaced_by >= 0)
    samples = [(int(i), int(replaced_by[i])) for i in removed[:: max(1, len(removed) // _SAMPLES)][:_SAMPLES]]
    return DedupResult(texts, replaced_by, exact, near, covered, samples)


def dedup_corpus(
    input_dir: str | Path,
    output_dir: str | Path,
    settings: DedupSettings | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Deduplicate a corpus folder into another; return the summary."""
    settings, report = settings or DedupSettings(), progress or (lambda _: None)
    output_dir = Path(output_dir)
    work = output_dir.parent / f"{output_dir.name}.work"
    with finished_folder(output_dir) as folder:
        texts, shingles, sketch = _sketch_parts(corpus_parts(input_dir), work, settings, report)
        report(f"comparing {len(texts)} documents")
        result = deduplicate(texts, shingles, sketch, settings)
        report("writing what is left")
        summary = _write(input_dir, folder, result)
    shutil.rmtree(work, ignore_errors=True)
    return summary


def _write(input_dir: str | Path, folder: Path, result: DedupResult) -> dict[str, Any]:
    removed, cut = Counter[str](), Counter[str]()
    names: dict[int, str] = {}
    wanted = {index for pair in result.samples for index in pair}
    words_cut = emptied = unmatched = 0
    with CorpusWriter(folder) as writer:
        for index, document in enumerate(read_corpus(input_dir)):
            if index in wanted:
                names[index] = f"{document.source}/{document.id}"
            if result.replaced_by[index] >= 0:
                removed[document.source] += 1
                continue
            covered = result.covered[result.texts.offsets[index] : result.texts.offsets[index + 1]]
            text: str | None = document.text
            if covered.any():
                text = cut_words(document.text, covered)
                unmatched += text is None
                if text is not None:
                    words_cut += int(covered.sum())
                    cut[document.source] += 1
                    if (~covered).sum() < _LEAST_WORDS:
                        emptied += 1
                        continue
            writer.write(document if text is None else Document(text, document.source, document.id))
        if not writer.documents:
            raise DataError(f"{input_dir} holds no text")
        return write_summary(
            folder,
            "dedup",
            read=len(result.texts),
            documents=writer.documents,
            exact=result.exact,
            near=result.near,
            words=len(result.texts.words),
            words_cut=words_cut,
            documents_cut=sum(cut.values()),
            emptied=emptied,
            not_cut_because_words_did_not_match=unmatched,
            removed_by_source=dict(sorted(removed.items())),
            samples=[{"removed": names[i], "kept": names[j]} for i, j in result.samples],
        )


def _exact_duplicates(texts: HashedTexts, order: np.ndarray) -> np.ndarray:
    """Same words in the same order; ``order`` lists documents from best to worst."""
    replaced_by = np.full(len(texts), -1, dtype=np.int64)
    first: dict[bytes, int] = {}
    for index in order.tolist():
        digest = hashlib.sha256(texts.text(index).tobytes()).digest()
        survivor = first.setdefault(digest, index)
        if survivor != index:
            replaced_by[index] = survivor
    return replaced_by


def _sketch_parts(
    parts: list[Path], work: Path, settings: DedupSettings, report: Progress
) -> tuple[HashedTexts, HashedTexts, np.ndarray]:
    size = settings.near.shingle_words if settings.near else 1
    loaded = []
    for part in parts:
        folder = work / f"{part.stem}-{file_sha256(part)[:16]}-{size}"
        if not folder.is_dir():
            report(f"hashing {part.name}")
            _sketch_part(part, folder, size, with_near=settings.near is not None)
        loaded.append([np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS])
    columns = list(zip(*loaded, strict=True))
    texts = HashedTexts(np.concatenate(columns[0]), _joined_offsets(columns[1]))
    shingles = HashedTexts(np.concatenate(columns[2]), _joined_offsets(columns[3]))
    return texts, shingles, np.concatenate(columns[4])


_ARRAYS = ("words", "offsets", "shingles", "shingle_offsets", "signatures")


def _sketch_part(part: Path, folder: Path, size: int, *, with_near: bool) -> None:
    texts = hash_words(read_texts(part))
    shingles = shingle(texts, size) if with_near else HashedTexts(np.empty(0, np.uint64), texts.offsets * 0)
    sketch = signatures(shingles)
    temporary = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    arrays = (texts.words, texts.offsets, shingles.words, shingles.offsets, sketch)
    try:
        for name, array in zip(_ARRAYS, arrays, strict=True):
            np.save(temporary / f"{name}.npy", array)
    except OSError as error:  # numpy's says neither where nor why
        raise OSError(f"{folder.parent} cannot be written (is the disk full?): {error}") from error
    os.replace(temporary, folder)


def _joined_offsets(offsets: tuple[np.ndarray, ...]) -> np.ndarray:
    lengths = np.concatenate([np.diff(part) for part in offsets])
    return np.concatenate(([0], np.cumsum(lengths)))


def _select(texts: HashedTexts, chosen: np.ndarray) -> HashedTexts:
    lengths = np.diff(texts.offsets)[chosen]
    return HashedTexts(texts.words[_word_positions(texts, chosen)], np.concatenate(([0], np.cumsum(lengths))))


def _word_positions(texts: HashedTexts, chosen: np.ndarray) -> np.ndarray:
    lengths = np.diff(texts.offsets)[chosen]
    ends = np.cumsum(lengths)
    return np.repeat(texts.offsets[:-1][chosen] - (ends - lengths), lengths) + np.arange(int(lengths.sum()))
