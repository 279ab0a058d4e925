"""Trains the run's tokenizer: SentencePiece's Unigram, or byte-pair encoding by ``tokenizers``.

The same texts give the same tokenizer in every process, because a run's content hash depends on it: the Unigram
trainer of ``tokenizers`` does not, its BPE trainer does. SentencePiece is needed for training only.
"""

from __future__ import annotations

import io
import json
import string
import tempfile
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from tokenizers import models, trainers
from transformers import PreTrainedTokenizerFast

from data_prep.errors import TokenizerError
from data_prep.tokenizer import (
    CLS,
    MASK,
    PAD,
    SEP,
    SPECIAL_TOKENS,
    UNK,
    text_side,
    wrap_model,
)
from data_prep.vocabulary import BYTE_PIECE, WORD_START

Algorithm = Literal["unigram", "bpe"]
ALGORITHMS: tuple[Algorithm, ...] = ("unigram", "bpe")
VOCAB_MULTIPLE = 64
_LETTERS = "".join(chr(c) for c in range(ord("а"), ord("я") + 1)) + "ё" + string.ascii_lowercase
# ASCII marks are needed too: text such as "<pad>" must have a better reading than the special token
_ALPHABET = _LETTERS + _LETTERS.upper() + string.digits + string.punctuation + "«»—…№"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_NEVER_CHOSEN = -1000.0  # score of pieces that text must not be segmented into
_TRAINER_THREADS = 2  # fixed, not the machine's: partial sums, and so the scores, depend on it
_RARE_WORDS_MATTER_BELOW = 50_000


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, algorithm: Algorithm = "unigram"
) -> PreTrainedTokenizerFast:
    """Train on ``texts``; the same texts give the same tokenizer on every machine.

    Fewer than ``vocab_size`` pieces come out when the texts do not support more. Raises ``TokenizerError``
    when there is no text or ``vocab_size`` cannot even hold the alphabet.
    """
    least = len(SPECIAL_TOKENS) + len(_BYTES) + len(_ALPHABET) + len(WORD_START)
    if vocab_size < least:
        raise TokenizerError(
            f"vocab_size {vocab_size} is too small: special tokens, bytes and the alphabet alone are {least}"
        )
    if algorithm == "bpe":
        return _train_bpe(texts, _round_up(vocab_size))
    pieces = _train_unigram(_word_counts(texts), _round_up(vocab_size))
    return wrap_model(models.Unigram(_pad_vocabulary(pieces), unk_id=1, byte_fallback=True))


def _word_counts(texts: Iterable[str]) -> Counter[str]:
    side = text_side()
    counts: Counter[str] = Counter()
    chunks: Counter[str] = Counter()
    for text in texts:
        chunks.update(text.split())
    for chunk, count in chunks.items():  # no piece spans a space: each distinct chunk is split once
        normal = side.normalizer.normalize_str(chunk)
        for word, _ in side.pre_tokenizer.pre_tokenize_str(normal):
            counts[word] += count
    if not counts:
        raise TokenizerError("no text to train a tokenizer on: check the input files")
    return counts


def _train_bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    alphabet = [WORD_START, *_ALPHABET]
    fixed = [*SPECIAL_TOKENS, *_BYTES]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=fixed,
        initial_alphabet=alphabet,
        # other characters only as far as they do not crowd out merges; the rest falls back to bytes
        limit_alphabet=len(alphabet) + vocab_size // 50,
        show_progress=False,
    )
    tokenizer = text_side()
    tokenizer.model = models.BPE(unk_token=UNK, byte_fallback=True)
    tokenizer.train_from_iterator(texts, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    if not trained["merges"]:
        raise TokenizerError("no text to train a tokenizer on: check the input files")
    vocabulary: dict[str, int] = trained["vocab"]
    for index in range(_round_up(len(vocabulary)) - len(vocabulary)):
        vocabulary[f"<unused{index}>"] = len(vocabulary)
    merges = [tuple(merge) for merge in trained["merges"]]
    return wrap_model(models.BPE(vocabulary, merges, unk_token=UNK, byte_fallback=True))


def _train_unigram(counts: Counter[str], vocab_size: int) -> list[tuple[str, float]]:
    # Sentencepiece is imported here: peers use tokenizers, and only training needs it.
    import sentencepiece

    least = 2 if len(counts) > _RARE_WORDS_MATTER_BELOW else 1
    words = sorted((-count, word) for word, count in counts.items() if count >= least and "\t" not in word)
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".tsv", newline="\n") as file:
        file.writelines(f"{word}\t{-count}\n" for count, word in words)
        file.flush()
        try:
            sentencepiece.SentencePieceTrainer.train(
                input=file.name,
                input_format="tsv",
                model_writer=model,
                model_type="unigram",
                vocab_size=vocab_size,
                hard_vocab_limit=False,
                byte_fallback=True,
                required_chars=_ALPHABET,
                # the defaults (1,000,000 and 0.75) took 48 s instead of 8 and gave 1.5 % more tokens a word
                seed_sentencepiece_size=max(10 * vocab_size, 40_000),
                shrinking_factor=0.6,
                num_threads=_TRAINER_THREADS,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                pad_id=0,
                pad_piece=PAD,
                unk_id=1,
                unk_piece=UNK,
                bos_id=-1,
                eos_id=-1,
                control_symbols=[CLS, SEP, MASK],
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            raise TokenizerError(
                f"vocab_size {vocab_size} does not suit this text: {_last_line(error)}"
            ) from error
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [(trained.id_to_piece(i), trained.get_score(i)) for i in range(trained.get_piece_size())]


def _pad_vocabulary(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Special and byte pieces must not match text that spells them; unused pieces fill up to the multiple."""
    fixed = [
        (piece, _NEVER_CHOSEN if piece in SPECIAL_TOKENS or BYTE_PIECE.fullmatch(piece) else score)
        for piece, score in pieces
    ]
    missing = _round_up(len(fixed)) - len(fixed)
    return fixed + [(f"<unused{i}>", _NEVER_CHOSEN) for i in range(missing)]


def _round_up(size: int) -> int:
    return -(-size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
