"""Documents to token ids with sentence ends; every distinct word is encoded once.

`chunk_ids.py` makes this faster than the tokenizer itself on whole texts. Whether its assumption holds is checked on
the first batch: with a tokenizer that reads over spaces, sentences are encoded whole.
Text that spells a special token ("[MASK]") stays text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from data_prep.block_text import TokenizedDocument
from data_prep.chunk_ids import ChunkIds
from data_prep.documents import Document
from data_prep.sentences import split_sentences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH_DOCUMENTS = 512
_SENTENCES_CHECKED = 200


class DocumentTokenizer:
    """Tokenize texts in batches.

    >>> tokenize = DocumentTokenizer(tokenizer)
    >>> tokenize(["Мама мыла раму. Пришёл кот."])[0].sentence_ends
    array([5, 9], dtype=uint32)
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast | Tokenizer) -> None:
        self._backend = tokenizer if isinstance(tokenizer, Tokenizer) else tokenizer.backend_tokenizer
        self._backend.encode_special_tokens = True
        self._chunks = ChunkIds(self._backend)
        self._by_chunks: bool | None = None

    def __call__(self, texts: Sequence[str]) -> list[TokenizedDocument]:
        """One result for every text, in order; a text without words has no ids."""
        documents = [split_sentences(text) for text in texts]
        sentences = [sentence for document in documents for sentence in document]
        if self._by_chunks is None:
            sample = sentences[:_SENTENCES_CHECKED]
            pairs = zip(self._encode_chunks(sample), self._encode_whole(sample), strict=True)
            self._by_chunks = all(np.array_equal(ours, theirs) for ours, theirs in pairs)
        ids, lengths = self._encode_chunks(sentences) if self._by_chunks else self._encode_whole(sentences)
        ends = np.concatenate(([0], np.cumsum(lengths)))
        bounds = np.concatenate(([0], np.cumsum([len(document) for document in documents], dtype=np.int64)))
        return [_document(ids, ends[first : last + 1]) for first, last in pairwise(bounds.tolist())]

    def _encode_whole(self, sentences: list[str]) -> tuple[np.ndarray, np.ndarray]:
        encoded = [e.ids for e in self._backend.encode_batch_fast(sentences, add_special_tokens=False)]
        lengths = np.array(list(map(len, encoded)), dtype=np.int64)
        return np.fromiter(chain.from_iterable(encoded), np.uint32, int(lengths.sum())), lengths

    def _encode_chunks(self, sentences: list[str]) -> tuple[np.ndarray, np.ndarray]:
        return self._chunks([sentence.split() for sentence in sentences])


def tokenize_documents(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerFast
) -> Iterator[TokenizedDocument]:
    """One result for every document, in order."""
    tokenize = DocumentTokenizer(tokenizer)
    iterator = iter(documents)
    while batch := list(islice(iterator, BATCH_DOCUMENTS)):
        yield from tokenize([document.text for document in batch])


def _document(ids: np.ndarray, ends: np.ndarray) -> TokenizedDocument:
    """What lies between the first of ``ends`` and the last; a sentence without ids is none."""
    sentence_ends = ends[1:][np.diff(ends) > 0] - ends[0]
    return TokenizedDocument(ids[ends[0] : ends[-1]], sentence_ends.astype(np.uint32))
