"""Documents to token ids with sentence ends; every distinct word is encoded once.

No piece of our tokenizers spans a space, so the ids of a text are the ids of its space-separated chunks, one
after the other; a cache of chunks makes this faster than the tokenizer itself on whole texts. Whether that
holds is checked on the first batch: with a tokenizer that reads over spaces, sentences are encoded whole.
Text that spells a special token ("[MASK]") stays text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from data_prep.documents import Document
from data_prep.sentences import split_sentences
from data_prep.shards import TokenizedDocument

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH_DOCUMENTS = 512
_CACHE_LIMIT = 2_000_000
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
        self._cache: dict[str, list[int]] = {}
        self._by_chunks: bool | None = None

    def __call__(self, texts: Sequence[str]) -> list[TokenizedDocument]:
        """One result for every text, in order; a text without words has no ids."""
        documents = [split_sentences(text) for text in texts]
        if self._by_chunks is None:
            sample = [sentence for document in documents for sentence in document][:_SENTENCES_CHECKED]
            self._by_chunks = self._encode_chunks(sample) == self._encode_whole(sample)
        encode = self._encode_chunks if self._by_chunks else self._encode_whole
        ids = iter(encode([sentence for document in documents for sentence in document]))
        return [_joined(list(islice(ids, len(document)))) for document in documents]

    def _encode_whole(self, sentences: list[str]) -> list[list[int]]:
        return [e.ids for e in self._backend.encode_batch_fast(sentences, add_special_tokens=False)]

    def _encode_chunks(self, sentences: list[str]) -> list[list[int]]:
        split = [sentence.split() for sentence in sentences]
        missing = list({chunk: None for chunks in split for chunk in chunks if chunk not in self._cache})
        if len(self._cache) + len(missing) > _CACHE_LIMIT:
            self._cache.clear()
            missing = list({chunk: None for chunks in split for chunk in chunks})
        self._cache.update(zip(missing, self._encode_whole(missing), strict=True))
        return [list(chain.from_iterable(map(self._cache.__getitem__, chunks))) for chunks in split]


def tokenize_documents(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerFast
) -> Iterator[TokenizedDocument]:
    """One result for every document, in order."""
    tokenize = DocumentTokenizer(tokenizer)
    iterator = iter(documents)
    while batch := list(islice(iterator, BATCH_DOCUMENTS)):
        yield from tokenize([document.text for document in batch])


def _joined(sentence_ids: list[list[int]]) -> TokenizedDocument:
    lengths = [len(ids) for ids in sentence_ids if ids]
    ids = np.fromiter(chain.from_iterable(sentence_ids), np.uint32, sum(lengths))
    return TokenizedDocument(ids, np.cumsum(lengths).astype(np.uint32))
