"""What a worker process of ``data-prep shard`` runs; it imports no more than it needs, so it starts fast."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess
from pathlib import Path

from tokenizers import Tokenizer

from data_prep.block_text import TokenizedDocument
from data_prep.tokenize_documents import DocumentTokenizer

Batch = list[tuple[str, bool, str]]  # source, whether it is held out, text
Result = list[tuple[str, bool, TokenizedDocument]]
_tokenize: DocumentTokenizer | None = None


def start_worker(tokenizer_dir: str) -> None:
    global _tokenize
    if (parent := multiprocessing.parent_process()) is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent as well, which ends us
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _tokenize = DocumentTokenizer(Tokenizer.from_file(str(Path(tokenizer_dir) / "tokenizer.json")))


def work(batch: Batch) -> Result:
    """Tokenized documents with their sources, in the order of ``batch``."""
    if _tokenize is None:
        raise RuntimeError("the worker was not started")
    documents = _tokenize([text for _, _, text in batch])
    return [
        (source, held_out, document) for (source, held_out, _), document in zip(batch, documents, strict=True)
    ]


def _end_with(parent: BaseProcess) -> None:
    """A parent that was killed stops nobody: its workers would wait for work for ever."""
    parent.join()
    os._exit(1)
