"""Made-up shards and a made-up tokenizer of a given vocabulary, read through the real training stream.

What a stream costs depends on the vocabulary's size, the rows' shape and the disk, not on what the text says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from data_prep.block_text import TokenizedDocument
from data_prep.masking import WholeWordMasker
from data_prep.shards import ShardWriter
from data_prep.stream import TrainingStream
from data_prep.tokenizer import CLS, MASK, PAD, SEP, SPECIAL_TOKENS, UNK, load_tokenizer, save_tokenizer
from data_prep.vocabulary import WORD_START
from swarm.bundle import SHARDS_FOLDER, TOKENIZER_FOLDER, shard_paths

DOCUMENTS, DOCUMENT_TOKENS = 512, 400


@contextmanager
def synthetic_stream(vocab_size: int, sequence_length: int, batch_size: int) -> Iterator[TrainingStream]:
    """An endless stream of masked batches; its files are gone afterwards."""
    with TemporaryDirectory(prefix="artel-bench-") as folder:
        write_synthetic_bundle(Path(folder), vocab_size)
        stream = TrainingStream(
            shard_paths(Path(folder)),
            WholeWordMasker(load_tokenizer(Path(folder) / TOKENIZER_FOLDER)),
            sequence_length=sequence_length,
            batch_size=batch_size,
            seed=0,
        )
        with stream:
            yield stream


def write_synthetic_bundle(folder: Path, vocab_size: int) -> None:
    """Tokenizer and shards where those of a run bundle are."""
    save_tokenizer(_tokenizer(vocab_size), folder / TOKENIZER_FOLDER)
    _write_shard(folder / SHARDS_FOLDER, vocab_size)


def _tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Every other piece opens a word."""
    words = (f"{WORD_START if i % 2 else ''}w{i}" for i in range(len(SPECIAL_TOKENS), vocab_size))
    vocabulary = {piece: number for number, piece in enumerate((*SPECIAL_TOKENS, *words))}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token=UNK)),
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=MASK,
    )


def _write_shard(folder: Path, vocab_size: int) -> None:
    folder.mkdir()
    generator = np.random.default_rng(0)
    writer = ShardWriter(folder, "synthetic", vocab_size)
    for _ in range(DOCUMENTS):
        ids = generator.integers(len(SPECIAL_TOKENS), vocab_size, DOCUMENT_TOKENS, dtype=np.int64)
        writer.write(TokenizedDocument(ids, np.array([DOCUMENT_TOKENS])))
    writer.close()
