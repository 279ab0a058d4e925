"""``data-prep tokenizer``: train on a corpus folder and say how many pieces a word takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from data_prep.corpus_folder import corpus_parts, read_corpus
from data_prep.errors import DataError
from data_prep.folders import finished_folder
from data_prep.seeds import stable_hash
from data_prep.tokenizer import save_tokenizer
from data_prep.train_tokenizer import Algorithm, train_tokenizer

_WORD = re.compile(r"[^\W_]+")
_HELDOUT_IN = 50  # one document in so many measures fertility and is not trained on
_HELDOUT_CHARACTERS = 5_000_000


@dataclass(frozen=True)
class TokenizerReport:
    """``fertility``: pieces a word on held-out text; ``byte_pieces``: share of single bytes."""

    vocab_size: int
    heldout_words: int
    fertility: float
    byte_pieces: float

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def train_on_corpus(
    input_dir: str | Path,
    output_dir: str | Path,
    vocab_size: int,
    *,
    algorithm: Algorithm = "unigram",
    max_characters: int = 500_000_000,
    progress: Callable[[str], None] | None = None,
) -> TokenizerReport:
    """Train on up to ``max_characters`` of the corpus and save; every 50th document measures the result."""
    report = progress or (lambda _: None)
    heldout: list[str] = []
    corpus_parts(input_dir)
    with finished_folder(Path(output_dir)) as folder:
        report("counting words")
        texts = _training_texts(input_dir, heldout, max_characters)
        tokenizer = train_tokenizer(texts, vocab_size, algorithm)
        save_tokenizer(tokenizer, folder)
        report("measuring fertility")
        return measure(tokenizer, heldout)


def measure(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> TokenizerReport:
    words = sum(len(_WORD.findall(text)) for text in texts)
    if not words:
        raise DataError("no held-out words to measure the tokenizer on: give it more text")
    backend = tokenizer.backend_tokenizer
    ids = [i for e in backend.encode_batch_fast(texts, add_special_tokens=False) for i in e.ids]
    byte_ids = {i for piece, i in tokenizer.get_vocab().items() if piece.startswith("<0x")}
    in_bytes = sum(i in byte_ids for i in ids)
    return TokenizerReport(len(tokenizer), words, round(len(ids) / words, 4), round(in_bytes / len(ids), 6))


def _training_texts(input_dir: str | Path, heldout: list[str], limit: int) -> Iterator[str]:
    seen = kept = 0
    for document in read_corpus(input_dir):
        if stable_hash(document.source, document.id) % _HELDOUT_IN == 0:
            if kept < _HELDOUT_CHARACTERS:
                heldout.append(document.text)
                kept += len(document.text)
            continue
        yield document.text
        seen += len(document.text)
        if seen >= limit:
            return
