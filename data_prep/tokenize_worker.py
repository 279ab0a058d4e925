"""What a worker process of ``data-prep shard`` runs; it imports no more than it needs, so it starts fast."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from data_prep.shards import TokenizedDocument
from data_prep.tokenize_documents import DocumentTokenizer

Batch = list[tuple[str, bool, str]]  # source, whether it is held out, text
Result = list[tuple[str, bool, TokenizedDocument]]
_tokenize: DocumentTokenizer | None = None


def start_worker(tokenizer_dir: str) -> None:
    global _tokenize
    _tokenize = DocumentTokenizer(Tokenizer.from_file(str(Path(tokenizer_dir) / "tokenizer.json")))


def work(batch: Batch) -> Result:
    """Tokenized documents with their sources, in the order of ``batch``."""
    if _tokenize is None:
        raise RuntimeError("the worker was not started")
    documents = _tokenize([text for _, _, text in batch])
    return [
        (source, held_out, document) for (source, held_out, _), document in zip(batch, documents, strict=True)
    ]
