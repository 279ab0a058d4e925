"""From character spans to token ranges, whatever the tokenizer: wordpiece, byte-level, sentencepiece.

A token belongs to a span if their characters overlap. That is right also where a token's offsets take in
the space before its word (`▁слово`, or byte-level without trimmed offsets), because spans begin at letters.
"""

from __future__ import annotations

from tokenizers import Encoding

TokenRange = tuple[int, int]


def tokens_of_span(encoding: Encoding, sequence: int, start: int, end: int) -> TokenRange | None:
    """Half-open token range of characters `start:end` of text 0 or 1 of a pair; None if cut off."""
    tokens = [
        index
        for index, (own, (first, last)) in enumerate(
            zip(encoding.sequence_ids, encoding.offsets, strict=True)
        )
        if own == sequence and first < end and last > start
    ]
    return (tokens[0], tokens[-1] + 1) if tokens else None


def is_whole(encoding: Encoding, tokens: TokenRange, start: int, end: int) -> bool:
    """Whether the tokens reach from the first to the last character: a window may end inside a span."""
    return encoding.offsets[tokens[0]][0] <= start and encoding.offsets[tokens[1] - 1][1] >= end
