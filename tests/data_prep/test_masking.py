"""Whole-word masking, each promise checked against a plain loop over words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import DataError
from data_prep.masking import IGNORED_LABEL, WholeWordMasker
from data_prep.vocabulary import BYTE_PIECE, UNUSED_PIECE


def words_of(row: list[int], tokenizer) -> list[list[int]]:
    """Positions of every word, by the definition in the module's docstring."""
    special = set(tokenizer.all_special_ids)
    words: list[list[int]] = []
    after_special = True
    for position, index in enumerate(row):
        if index in special:
            after_special = True
            continue
        piece = tokenizer.convert_ids_to_tokens(index)
        mark = len(piece) == 1 and piece in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
        starts = piece.startswith("▁") or mark or (piece.startswith("<") and not BYTE_PIECE.fullmatch(piece))
        if starts or after_special:
            words.append([])
        words[-1].append(position)
        after_special = False
    return words


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Any ids at all, separators and padding in odd places included."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 48))
    special_share = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 512, (rows, width))
    ids[rng.random((rows, width)) < special_share] = rng.integers(0, 5)
    return ids, seed


@given(batches())
@settings(max_examples=150)
def test_every_promise_on_any_ids(masker: WholeWordMasker, tokenizer, case: tuple[np.ndarray, int]) -> None:
    ids, seed = case
    ids = ids % len(tokenizer)
    inputs, labels = masker(ids, np.random.default_rng(seed))
    chosen = labels != IGNORED_LABEL
    assert (labels[chosen] == ids[chosen]).all()
    assert (inputs[~chosen] == ids[~chosen]).all()
    assert not np.isin(ids[chosen], tokenizer.all_special_ids).any()
    for row in range(len(ids)):
        words = words_of(ids[row].tolist(), tokenizer)
        masked = [len({bool(chosen[row, position]) for position in word}) for word in words]
        assert set(masked) <= {1}, "a word is half-masked"
        count = sum(len(word) for word in words)
        budget = min(count, max(1, round(0.15 * count)))
        left = budget - int(chosen[row].sum())
        assert left >= 0
        if left:
            untouched = [len(word) for word in words if not chosen[row, word[0]]]
            assert all(length > left for length in untouched), "a word that fits was left out"


@given(batches())
@settings(max_examples=30)
def test_seeded(masker: WholeWordMasker, tokenizer, case: tuple[np.ndarray, int]) -> None:
    ids, seed = case[0] % len(tokenizer), case[1]
    first = masker(ids, np.random.default_rng(seed))
    again = masker(ids.astype(np.uint16), np.random.default_rng(seed))
    assert all(np.array_equal(left, right) for left, right in zip(first, again, strict=True))
    assert first[0].dtype == first[1].dtype == np.int64


def test_shares(masker: WholeWordMasker, tokenizer) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(5 + 256, len(tokenizer), (400, 128))
    inputs, labels = masker(ids, rng)
    chosen = labels != IGNORED_LABEL
    assert chosen.sum(axis=1).tolist() == [round(0.15 * 128)] * 400 or abs(chosen.mean() - 0.15) < 0.002
    masked = (inputs[chosen] == tokenizer.mask_token_id).mean()
    kept = (inputs[chosen] == ids[chosen]).mean()
    assert abs(masked - 0.8) < 0.015
    assert abs(kept - 0.1) < 0.015
    replaced = inputs[chosen & (inputs != ids) & (inputs != tokenizer.mask_token_id)]
    pieces = tokenizer.convert_ids_to_tokens(np.unique(replaced).tolist())
    assert not any(BYTE_PIECE.fullmatch(piece) or UNUSED_PIECE.fullmatch(piece) for piece in pieces)
    assert not set(replaced.tolist()) & set(tokenizer.all_special_ids)


def test_every_word_has_its_chance(masker: WholeWordMasker, tokenizer) -> None:
    """Over many draws, words of one length are chosen equally often."""
    start = next(index for piece, index in tokenizer.get_vocab().items() if piece.startswith("▁"))
    ids = np.full((4000, 40), start)
    _, labels = masker(ids, np.random.default_rng(0))
    share = (labels != IGNORED_LABEL).mean(axis=0)
    assert np.abs(share - 0.15).max() < 0.03


def test_nothing_to_mask(masker: WholeWordMasker, tokenizer) -> None:
    ids = np.array([[tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id]])
    inputs, labels = masker(ids, np.random.default_rng(0))
    assert (inputs == ids).all()
    assert (labels == IGNORED_LABEL).all()


def test_bad_ids_and_shares(masker: WholeWordMasker, tokenizer) -> None:
    with pytest.raises(DataError, match="in the vocabulary"):
        masker(np.array([[1, 10**6]]), np.random.default_rng(0))
    with pytest.raises(DataError, match="in the vocabulary"):
        masker(np.array([[1, -7]]), np.random.default_rng(0))
    with pytest.raises(DataError, match="shares"):
        WholeWordMasker(tokenizer, mask_share=0.9, random_share=0.3)
