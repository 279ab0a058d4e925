"""Documents to token ids with sentence ends: razdel finds sentences, the tokenizer encodes them in batches.

Sentences are encoded one by one and joined; every sentence opens with ``▁`` whatever stood before it, so the
joined ids are those of the whole document. Text that spells a special token ("[MASK]") stays text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import razdel
from transformers import PreTrainedTokenizerFast

from data_prep.documents import Document
from data_prep.shards import TokenizedDocument

_BATCH_DOCUMENTS = 512


def split_sentences(text: str) -> list[str]:
    """Sentences in order; a newline always ends one."""
    return [
        sentence.text
        for paragraph in text.splitlines()
        for sentence in razdel.sentenize(paragraph)
        if sentence.text.strip()
    ]


def tokenize_documents(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerFast
) -> Iterator[TokenizedDocument]:
    """One result for every document, in order; a document without text gives no ids."""
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    iterator = iter(documents)
    while batch := list(islice(iterator, _BATCH_DOCUMENTS)):
        sentences = [split_sentences(document.text) for document in batch]
        flat = [sentence for document in sentences for sentence in document]
        encodings = iter(backend.encode_batch_fast(flat, add_special_tokens=False))
        for document in sentences:
            ids = [encoding.ids for encoding in islice(encodings, len(document))]
            yield _joined([i for i in ids if i])


def _joined(sentence_ids: list[list[int]]) -> TokenizedDocument:
    ids = [token for sentence in sentence_ids for token in sentence]
    ends = np.cumsum([len(sentence) for sentence in sentence_ids])
    return TokenizedDocument(np.asarray(ids, dtype=np.uint32), ends.astype(np.uint32))
