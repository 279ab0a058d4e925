"""Masking speed against Hugging Face's collators, interleaved in one run.

    python benchmarks/masking.py [--rows 64] [--length 512] [--rounds 7]

Every round gives the same rows of ids to all of them and measures processor time; the ratio of medians is
printed. Hugging Face's whole-word option wants character offsets: they are made once, outside the timing.
Quality stands beside speed: the share of tokens
chosen, and the share of words that were masked in part.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from data_prep.masking import IGNORED_LABEL, WholeWordMasker
from data_prep.train_tokenizer import train_tokenizer

Mask = Callable[[np.ndarray], np.ndarray]


def make_text(words: int, seed: int = 0) -> str:
    """Words of Russian-like length and frequency; masking only sees ids, so meaning does not matter."""
    rng = random.Random(seed)
    letters = "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъ"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(1, 12))) for _ in range(20_000)]
    weights = [1 / (rank + 3) for rank in range(len(vocabulary))]
    chosen = rng.choices(vocabulary, weights, k=words)
    return " ".join(word + rng.choice(["", "", "", "", ",", "."]) for word in chosen)


def make_rows(tokenizer: PreTrainedTokenizerFast, text: str, rows: int, length: int) -> np.ndarray:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    body = np.resize(np.asarray(ids), (rows, length - 2))
    frame = ((0, 0), (tokenizer.cls_token_id, tokenizer.sep_token_id))
    return np.pad(body, ((0, 0), (1, 1)), constant_values=frame)


def contenders(tokenizer: PreTrainedTokenizerFast) -> dict[str, Mask]:
    """Functions from ids to labels."""
    masker, rng = WholeWordMasker(tokenizer), np.random.default_rng(0)
    token = DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=0.15)
    found: dict[str, Mask] = {
        "artel whole-word": lambda ids: masker(ids, rng)[1],
        "HF token": lambda ids: token(_features(ids))["labels"].numpy(),
    }
    whole = DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=0.15, whole_word_mask=True)
    found["HF whole-word"] = lambda ids: whole(_word_features(tokenizer, ids))["labels"].numpy()
    return found


def _features(ids: np.ndarray) -> list[dict[str, list[int]]]:
    return [{"input_ids": row} for row in ids.tolist()]


_offsets: dict[bytes, list[dict[str, object]]] = {}


def _word_features(tokenizer: PreTrainedTokenizerFast, ids: np.ndarray) -> list[dict[str, object]]:
    """Rows with the character offsets from which HF derives words; made once, outside the timing."""
    key = ids.tobytes()
    if key not in _offsets:
        _offsets[key] = [_with_offsets(tokenizer, row) for row in ids.tolist()]
    return [dict(feature) for feature in _offsets[key]]


def _with_offsets(tokenizer: PreTrainedTokenizerFast, row: list[int]) -> dict[str, object]:
    offsets, position = [], 0
    special = set(tokenizer.all_special_ids)
    for piece, index in zip(tokenizer.convert_ids_to_tokens(row), row, strict=True):
        if index in special:
            offsets.append((0, 0))
            continue
        position += piece.startswith("▁")
        end = position + len(piece.lstrip("▁"))
        offsets.append((position, end))
        position = end
    mask = [int(index in special) for index in row]
    return {"input_ids": row, "offset_mapping": offsets, "special_tokens_mask": mask}


def measure(found: dict[str, Mask], batches: list[np.ndarray], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for name, mask in found.items():
        mask(batches[0])  # first calls build tables
        for ids in batches:
            if name == "HF whole-word":
                mask(ids)
    for _ in range(rounds):
        for name, mask in found.items():
            repeats = 20 if name.startswith("artel") else 1
            started = time.process_time()
            for _ in range(repeats):
                for ids in batches:
                    mask(ids)
            seconds[name].append((time.process_time() - started) / repeats)
    return seconds


def half_masked(tokenizer: PreTrainedTokenizerFast, ids: np.ndarray, labels: np.ndarray) -> float:
    """Share of the words touched that were masked only in part."""
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    starts = np.array([piece.startswith("▁") or piece in (",", ".") for piece in pieces])
    special = np.isin(ids, tokenizer.all_special_ids)
    kind = starts[ids] | special
    kind[:, 1:] |= special[:, :-1]
    word = np.cumsum(kind.reshape(-1)) - 1
    chosen = (labels != IGNORED_LABEL).reshape(-1)
    total, masked = np.bincount(word), np.bincount(word, chosen)
    touched = masked > 0
    return float((masked[touched] < total[touched]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    text = make_text(60_000)
    tokenizer = train_tokenizer([text], 8192)
    ids = make_rows(tokenizer, text, options.rows, options.length)
    found = contenders(tokenizer)
    seconds = measure(found, [ids], options.rounds)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{options.rows} x {options.length} tokens, median processor time of {options.rounds} rounds")
    for name in found:
        labels = found[name](ids)
        share = (labels != IGNORED_LABEL).mean()
        ratio = median[name] / median["artel whole-word"]
        print(
            f"{name:18} {ids.size / median[name] / 1e6:8.2f} M tokens/s   artel is {ratio:5.1f}x   "
            f"chosen {share:.3f}   words half-masked {half_masked(tokenizer, ids, labels):.3f}"
        )


if __name__ == "__main__":
    main()
