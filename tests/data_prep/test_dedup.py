"""data-prep dedup: planted duplicates of every kind are found, and hardly anything else is removed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from data_prep import dedup_step
from data_prep.corpus_folder import corpus_parts, read_corpus, write_corpus
from data_prep.dedup_step import DedupSettings, dedup_corpus
from data_prep.documents import Document
from data_prep.errors import DataError
from data_prep.near_duplicates import NearSettings, duplicates, signatures
from data_prep.shards import file_sha256
from data_prep.shared_spans import cut_words, repeated_words
from data_prep.shingles import hash_words, shingle


def _vocabulary(rng: random.Random) -> list[str]:
    return ["".join(rng.choices("абвгдежзиклмнопрстуя", k=rng.randint(2, 9))) for _ in range(4000)]


def _texts(count: int, words: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    vocabulary = _vocabulary(rng)
    weights = [1 / (rank + 5) for rank in range(len(vocabulary))]
    return [" ".join(rng.choices(vocabulary, weights, k=words)) for _ in range(count)]


def _edited(text: str, rng: random.Random) -> str:
    """One word in a hundred replaced."""
    words = text.split()
    for start in range(0, len(words), 100):
        words[rng.randrange(start, min(start + 100, len(words)))] = f"правка{rng.randrange(10**6)}"
    return " ".join(words)


def _run(tmp_path: Path, texts: list[str], **settings) -> tuple[list[Document], dict]:
    (tmp_path / "in").mkdir()
    write_corpus(tmp_path / "in", [Document(text, "a", str(i)) for i, text in enumerate(texts)])
    summary = dedup_corpus(tmp_path / "in", tmp_path / "out", DedupSettings(**settings))
    return list(read_corpus(tmp_path / "out")), summary


def test_word_hashes_and_shingles() -> None:
    texts = hash_words(["Ещё ёлка, — да!", "", "«еще» ЕЛКА да", "!"])
    assert np.diff(texts.offsets).tolist() == [3, 0, 3, 0]
    assert (texts.text(0) == texts.text(2)).all()
    runs = shingle(hash_words(["а б в г д", "б в г", "г"]), 3)
    assert np.diff(runs.offsets).tolist() == [3, 1, 1]
    assert runs.text(0)[1] == runs.text(1)[0]
    assert len(set(runs.words.tolist())) == 4


@pytest.mark.parametrize("size", [1, 2, 5, 8, 13, 50])
def test_a_run_has_one_hash_wherever_it_stands(size: int) -> None:
    words = _texts(1, 80)[0].split()
    alone = shingle(hash_words([" ".join(words[20 : 20 + size])]), size).words
    inside = shingle(hash_words([" ".join(words)]), size).words
    assert len(alone) == 1
    assert alone[0] == inside[20]


def test_exact_duplicates_keep_the_first(tmp_path: Path) -> None:
    texts = _texts(20, 60)
    kept, summary = _run(tmp_path, [*texts, texts[3].upper(), texts[7] + "!"])
    assert [document.text for document in kept] == texts
    assert (summary["exact"], summary["near"]) == (2, 0)


def test_planted_near_duplicates() -> None:
    rng = random.Random(1)
    originals = _texts(1500, 200)
    texts = [*originals, *(_edited(text, rng) for text in originals[:1000])]
    shingles = shingle(hash_words(texts), 5)
    found = duplicates(shingles, signatures(shingles), np.arange(len(texts)), NearSettings())
    recall = (found[1500:] == np.arange(1000)).mean()
    assert recall >= 0.99
    assert (found[:1500] >= 0).mean() <= 0.001


def test_the_longest_survives_and_chains_do_not_swallow(tmp_path: Path) -> None:
    rng = random.Random(2)
    chain = [_texts(1, 400)[0]]
    for _ in range(12):
        words = chain[-1].split()
        for position in rng.sample(range(400), 8):
            words[position] = f"новое{rng.randrange(10**6)}"
        chain.append(" ".join(words))
    longest = chain[0] + " и ещё несколько слов в конце"
    kept, _ = _run(tmp_path, [*chain, longest], span_words=0)
    assert kept[-1].text == longest
    assert chain[0] not in {document.text for document in kept}
    assert len(kept) > 2, "the ends of the chain have little in common and must not replace each other"


def test_many_copies_leave_one(tmp_path: Path) -> None:
    rng = random.Random(3)
    text = _texts(1, 300)[0]
    kept, _ = _run(tmp_path, [_edited(text, rng) for _ in range(200)], span_words=0)
    assert len(kept) <= 3


def test_shared_spans_stay_in_the_first_document(tmp_path: Path) -> None:
    texts = _texts(3, 200)
    span = ", ".join(_texts(1, 70, seed=9)[0].split())
    first = f"{texts[0]}\n{span}. {texts[1]}"
    second = f"Начало второго.\n{span}.\nКонец: {texts[2]}"
    kept, summary = _run(tmp_path, [first, second])
    assert kept[0].text == first
    assert kept[1].text == f"Начало второго.\nКонец: {texts[2]}"
    assert (summary["words_cut"], summary["documents_cut"]) == (70, 1)


def test_every_repeated_span_and_no_other_word_is_covered() -> None:
    rng = random.Random(4)
    words = [str(rng.randrange(10**9)) for _ in range(400)]
    sequence = words[:300] + words[100:180] + words[300:] + words[5:20]
    covered = repeated_words(hash_words([" ".join(sequence)]), 20)
    assert np.flatnonzero(covered).tolist() == list(range(300, 380))


def test_cut_words() -> None:
    covered = np.array([False, True, True, False, False])
    assert cut_words("Раз, два, три!\nЧетыре — пять.", covered) == "Раз, Четыре — пять."
    assert cut_words("Раз два", covered) is None


def test_deterministic_and_resumable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    texts = _texts(300, 120)
    texts += [_edited(text, rng) for text in texts[:100]]
    _run(tmp_path, texts)
    expected = [file_sha256(part) for part in corpus_parts(tmp_path / "out")]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dedup_step, "deduplicate", stop)
        with pytest.raises(KeyboardInterrupt):
            dedup_corpus(tmp_path / "in", tmp_path / "again")
    assert not (tmp_path / "again").exists()
    monkeypatch.setattr(dedup_step, "_sketch_part", stop)  # all hashing was done before the interruption
    dedup_corpus(tmp_path / "in", tmp_path / "again")
    assert [file_sha256(part) for part in corpus_parts(tmp_path / "again")] == expected
    assert not (tmp_path / "again.work").exists()


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="threshold"):
        NearSettings(threshold=0.1)
    with pytest.raises(DataError, match="8 words"):
        repeated_words(hash_words(["а б"]), 3)
    with pytest.raises(DataError, match="not a corpus folder"):
        dedup_corpus(tmp_path, tmp_path / "out")


def test_on_real_text(corpus_dir: Path, tmp_path: Path) -> None:
    from data_prep.import_step import import_documents

    import_documents([str(corpus_dir / "wikinews_nerel")], tmp_path / "raw")
    summary = dedup_corpus(tmp_path / "raw", tmp_path / "out")
    assert summary["documents"] > 800
    assert summary["words_cut"] < 0.02 * summary["words"]
