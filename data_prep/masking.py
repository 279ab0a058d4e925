"""Whole-word masking on token ids: numpy only, no strings, no Python loop over tokens.

A word starts at a piece that begins with ``▁``, begins with ``<``, or is one ASCII punctuation mark (BERT's
convention); every other piece, byte pieces included, continues the word before it. Special tokens belong to
no word, are never masked, and end the word before them: what follows a special token starts a new word, so
no word crosses a separator. Where the reference implementation draws random replacements from the whole
vocabulary, this one draws from ordinary pieces only: a [SEP] or a byte in mid-sentence teaches nothing.
"""

from __future__ import annotations

import string

import numpy as np

from data_prep.errors import DataError, TokenizerError
from data_prep.vocabulary import BYTE_PIECE, UNUSED_PIECE, WORD_START, Vocabulary, check_special_tokens

IGNORED_LABEL = -100
_CONTINUES, _STARTS, _SPECIAL = 0, 1, 2


class WholeWordMasker:
    """Choose whole words for about 15 % of a row's tokens and corrupt them 80/10/10.

    Per row the budget is ``min(n, max(1, round(probability * n)))`` of its ``n`` ordinary tokens. Words come
    in random order; one that would exceed the budget is skipped and the next is tried, so the budget is never
    exceeded and nearly always met exactly. Each masked token becomes [MASK] with probability 0.8, a random
    ordinary piece with 0.1, and stays with 0.1.

    >>> masker = WholeWordMasker(tokenizer)
    >>> input_ids_BL, labels_BL = masker(ids_BL, np.random.default_rng(0))
    """

    def __init__(
        self,
        tokenizer: Vocabulary,
        *,
        probability: float = 0.15,
        mask_share: float = 0.8,
        random_share: float = 0.1,
    ) -> None:
        if not 0 < probability <= 1 or min(mask_share, random_share) < 0 or mask_share + random_share > 1:
            raise DataError(
                f"masking shares must lie in 0..1 and sum to at most 1: probability {probability}, "
                f"mask {mask_share}, random {random_share}"
            )
        check_special_tokens(tokenizer, "given to the masker")
        self.probability = probability
        self.mask_share = mask_share
        self.random_share = random_share
        self.mask_id = int(tokenizer.mask_token_id)
        self.cls_id, self.sep_id = int(tokenizer.cls_token_id), int(tokenizer.sep_token_id)
        self.pad_id = int(tokenizer.pad_token_id)
        self.vocab_size = len(tokenizer)
        self._kind = _kinds_of_pieces(tokenizer)
        self._ordinary = _ordinary_ids(tokenizer, self._kind)
        if not len(self._ordinary):
            raise TokenizerError("the tokenizer has special tokens only: train one on text")

    def __call__(self, ids_BL: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(input_ids_BL, labels_BL)`` in int64; labels are -100 where nothing is to be predicted.

        Raises ``DataError`` for ids outside the vocabulary.
        """
        position = self._masked_positions(ids_BL, rng)
        input_ids = ids_BL.astype(np.int64).reshape(-1)
        labels = np.full(input_ids.shape, IGNORED_LABEL, dtype=np.int64)
        labels[position] = input_ids[position]
        draw = rng.random(len(position), dtype=np.float32)
        input_ids[position[draw < self.mask_share]] = self.mask_id
        replaced = position[(draw >= self.mask_share) & (draw < self.mask_share + self.random_share)]
        input_ids[replaced] = self._ordinary[rng.integers(len(self._ordinary), size=len(replaced))]
        return input_ids.reshape(ids_BL.shape), labels.reshape(ids_BL.shape)

    def _masked_positions(self, ids_BL: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Flat positions of the tokens of the chosen words."""
        if not ids_BL.size:
            return np.empty(0, dtype=np.int64)
        width = ids_BL.shape[1]
        if int(ids_BL.max()) >= self.vocab_size or int(ids_BL.min()) < 0:
            raise DataError(
                f"token ids must lie in the vocabulary of {self.vocab_size}: 0 to {self.vocab_size - 1}"
            )
        kind_BL = self._kind.take(ids_BL)
        special_BL = kind_BL == _SPECIAL
        budget_B = self._budget(width - np.count_nonzero(special_BL, axis=1))
        start, length = _words(kind_BL, special_BL)
        chosen = _choose_words(start // width, length, budget_B, 2 * self.probability, rng)
        return _expand(start[chosen], length[chosen])

    def _budget(self, maskable_B: np.ndarray) -> np.ndarray:
        return np.minimum(maskable_B, np.maximum(1, np.rint(self.probability * maskable_B).astype(np.int64)))


def _words(kind_BL: np.ndarray, special_BL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat start position and length in tokens of every word."""
    boundary_BL = kind_BL != _CONTINUES
    boundary_BL[:, 1:] |= special_BL[:, :-1]
    boundary_BL[:, 0] = True
    start = np.flatnonzero(boundary_BL)
    length = np.diff(start, append=kind_BL.size)
    ordinary = ~special_BL.reshape(-1)[start]
    return start[ordinary], length[ordinary]


def _choose_words(
    row: np.ndarray, length: np.ndarray, budget_B: np.ndarray, soon: float, rng: np.random.Generator
) -> np.ndarray:
    """Greedy first fit over a random order of words, for all rows at once.

    The order is that of random keys. Words with keys under ``soon`` come first and mostly fill the budget, so
    the rest need not be sorted: after them, only words that still fit are.
    """
    key = rng.random(len(row))
    left_B = budget_B.copy()
    taken: list[np.ndarray] = []
    for stage in (key < soon, key >= soon):
        candidate = np.flatnonzero(stage & (length <= left_B[row]))
        order = np.argsort(row[candidate] + key[candidate])
        taken += _first_fit(candidate[order], row, length, left_B)
    return np.concatenate(taken) if taken else np.empty(0, dtype=np.int64)


def _first_fit(
    candidate: np.ndarray, row: np.ndarray, length: np.ndarray, left_B: np.ndarray
) -> list[np.ndarray]:
    """Take from ``candidate``, in order, what fits into ``left_B``, which is brought up to date.

    Equal to trying words one by one: a word longer than what is left of the budget would be skipped whenever
    its turn came, so those are removed first, and the longest prefix that fits is then taken at once.
    """
    taken = []
    while len(candidate):
        row_of, length_of = row[candidate], length[candidate]
        before = np.cumsum(length_of) - length_of
        first = np.searchsorted(row_of, np.arange(len(left_B))).clip(max=len(candidate) - 1)
        fits = before + length_of - before[first][row_of] <= left_B[row_of]
        taken.append(candidate[fits])
        left_B -= np.bincount(row_of[fits], length_of[fits], len(left_B)).astype(np.int64)
        candidate = candidate[~fits & (length_of <= left_B[row_of])]
    return taken


def _expand(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Positions covered by the words: ``start, start + 1, …`` for every word."""
    offset = np.cumsum(length) - length
    return np.repeat(start - offset, length) + np.arange(int(length.sum()))


def _kinds_of_pieces(tokenizer: Vocabulary) -> np.ndarray:
    kinds = np.full(len(tokenizer), _CONTINUES, dtype=np.uint8)
    for piece, index in tokenizer.get_vocab().items():
        single_mark = len(piece) == 1 and piece in string.punctuation
        if (
            piece.startswith(WORD_START)
            or single_mark
            or (piece[0] == "<" and not BYTE_PIECE.fullmatch(piece))
        ):
            kinds[index] = _STARTS
    kinds[np.asarray(tokenizer.all_special_ids, dtype=np.int64)] = _SPECIAL
    return kinds


def _ordinary_ids(tokenizer: Vocabulary, kinds: np.ndarray) -> np.ndarray:
    ordinary = kinds != _SPECIAL
    for piece, index in tokenizer.get_vocab().items():
        if BYTE_PIECE.fullmatch(piece) or UNUSED_PIECE.fullmatch(piece):
            ordinary[index] = False
    return np.flatnonzero(ordinary)
