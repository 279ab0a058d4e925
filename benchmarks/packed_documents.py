"""Training on documents of mixed length: several packed into each row, against one a row with padding.

    python -m benchmarks.packed_documents [--hidden 512] [--documents 32] [--rows 4] [--rounds 5] [--clock cpu]
    python -m benchmarks.packed_documents --device cuda --precision bf16 --hidden 1024 --documents 512 --rows 32

Lengths are log-normal around 150 tokens, at most a row: much like encyclopedia articles and news, whose longer ones
are cut. Both ways train on the same documents in micro-batches of the same number of rows, and count the tokens of
text, not the padding. Padded rows reach to the longest document of their micro-batch. Packed ones are filled first
fit, longest first; what stays empty is not computed. "packed, dense mask" is what packing brings without attention
document by document.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from unittest.mock import patch

import torch

from benchmarks.interleaved import median_ratio, print_table, time_in_turns
from benchmarks.step_competitors import VOCABULARY, lean
from model import layers_lean_albert
from model.fp32_matmul import allow_onednn_fp32
from model.host_allocator import keep_freed_memory
from model.losses_lean_albert import IGNORED_LABEL
from model.training_step import MASKED_FRACTION, PRECISIONS, Batch, run_step

MEDIAN_TOKENS, SPREAD, FEWEST_TOKENS = 150, 0.8, 16
PADDED, DENSE, PACKED = "padded", "packed, dense mask", "packed"

Document = tuple[torch.Tensor, torch.Tensor]  # ids and labels, [tokens]


def documents(count: int, longest: int) -> list[Document]:
    """Random text; the same every time."""
    generator = torch.Generator().manual_seed(0)
    lengths = (torch.randn(count, generator=generator) * SPREAD).exp() * MEDIAN_TOKENS
    result = []
    for length in lengths.long().clamp(FEWEST_TOKENS, longest).tolist():
        ids = torch.randint(5, VOCABULARY, (length,), generator=generator)
        masked = torch.rand(length, generator=generator) < MASKED_FRACTION
        result.append((ids, ids.where(masked, IGNORED_LABEL)))
    return result


def padded_batches(texts: list[Document], rows: int) -> list[Batch]:
    """One document a row, in the order they come."""
    batches = []
    for start in range(0, len(texts), rows):
        ids, labels = zip(*texts[start : start + rows], strict=True)
        pad = torch.nn.utils.rnn.pad_sequence
        ids_BL = pad(list(ids), batch_first=True)
        batches.append(
            {
                "input_ids": ids_BL,
                "labels": pad(list(labels), batch_first=True, padding_value=IGNORED_LABEL),
                "attention_mask": (ids_BL > 0).long(),
            }
        )
    return batches


def packed_rows(texts: list[Document], length: int) -> list[list[Document]]:
    """Which documents share a row: first fit, longest first."""
    rows: list[list[Document]] = []
    room: list[int] = []
    for text in sorted(texts, key=lambda text: len(text[0]), reverse=True):
        size = len(text[0])
        place = next((row for row, left in enumerate(room) if left >= size), None)
        if place is None:
            rows.append([])
            room.append(length)
            place = len(rows) - 1
        rows[place].append(text)
        room[place] -= size
    return rows


def packed_batches(texts: list[Document], rows: int, length: int) -> list[Batch]:
    """Several documents a row, numbered from 1 on; 0 is what stays empty."""
    filled = packed_rows(texts, length)
    batches = []
    for start in range(0, len(filled), rows):
        members = filled[start : start + rows]
        blank = {"input_ids": 0, "labels": IGNORED_LABEL, "sequence_ids": 0}
        batch = {name: torch.full((len(members), length), value) for name, value in blank.items()}
        for row, row_texts in enumerate(members):
            at = 0
            for number, (ids, labels) in enumerate(row_texts, start=1):
                place = (row, slice(at, at + len(ids)))
                batch["input_ids"][place], batch["labels"][place] = ids, labels
                batch["sequence_ids"][place] = number
                at += len(ids)
        batches.append(batch)
    return batches


def positions(batches: list[Batch]) -> int:
    """Tokens of text and padding."""
    return sum(batch["input_ids"].numel() for batch in batches)


def epoch(model: torch.nn.Module, batches: list[Batch], device: str, precision: str) -> Callable[[], None]:
    """Forward and backward over all of them."""
    batches = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in batches]

    def run() -> None:
        model.zero_grad(set_to_none=True)
        for batch in batches:
            run_step(model, batch, device, precision)

    return run


def with_dense_mask(run: Callable[[], None]) -> Callable[[], None]:
    """The same under a block-diagonal mask over whole rows, as where no kernel takes documents one by one."""

    def masked() -> None:
        with patch.object(layers_lean_albert, "can_attend_by_run", lambda *_: False):
            run()

    return masked


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, nargs="+", default=[512])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--rows", type=int, default=4, help="rows of a micro-batch")
    parser.add_argument("--length", type=int, default=512, help="tokens of a packed row")
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="fp32")
    parser.add_argument(
        "--device", default="cpu", help="on a GPU, with bf16 or fp16 for its kernel of documents"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: with --threads 1")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    allow_onednn_fp32()
    texts = documents(given.documents, given.length)
    tokens = sum(len(ids) for ids, _ in texts)
    padded, packed = padded_batches(texts, given.rows), packed_batches(texts, given.rows, given.length)
    print(
        f"{len(texts)} documents of {tokens} tokens (mean {tokens / len(texts):.0f}), {given.device}, "
        f"{given.threads} threads, {given.rounds} rounds in turns, {given.clock} time, {given.precision}"
    )
    for hidden in given.hidden:
        model = lean(hidden, given.layers).train().to(given.device)
        run = epoch(model, packed, given.device, given.precision)
        beside = epoch(model, padded, given.device, given.precision)
        turns = {PADDED: beside, DENSE: with_dense_mask(run), PACKED: run}
        clock = time.process_time if given.clock == "cpu" else time.perf_counter
        seconds = time_in_turns(turns, given.rounds, clock=clock)
        print(f"\nhidden {hidden}, {given.layers} layers, micro-batches of {given.rows} rows\n")
        rows = []
        for name, batches in ((PADDED, padded), (DENSE, packed), (PACKED, packed)):
            rows.append(
                (
                    name,
                    f"{tokens / statistics.median(seconds[name]):.0f}",
                    f"{median_ratio(seconds, PADDED, name):.2f}x",
                    f"{1 - tokens / positions(batches):.0%}",
                )
            )
        print_table(("documents", "tokens of text/s", "vs padded", "padding"), rows)


if __name__ == "__main__":
    main()
