"""Lines and bytes of plain or compressed files; damage ends a file or, in bzip2 dumps, one stream of it.

Wikipedia's dumps are thousands of independent bzip2 streams: after a damaged one reading goes on at the next
stream's magic, so one bad sector costs about a hundred pages and not the rest of the dump.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from data_prep.damage import DamageReport

COMPRESSIONS = (".gz", ".bz2", ".zst", ".xz")
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
_BZ2_MAGIC = b"BZh91AY&SY"
_CHUNK = 1 << 20
_ZSTD_CHUNK = 1 << 14  # what was decompressed before damage is lost up to this much


def plain_suffix(path: Path) -> str:
    """``.jsonl`` of ``news.jsonl.gz``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read_lines(path: Path, damage: DamageReport) -> Iterator[tuple[int, bytes]]:
    """Numbered lines, from 1; what cannot be decompressed is reported."""
    if path.suffix.lower() == ".bz2":
        yield from _numbered(_bz2_chunks(path, damage))
        return
    number = 0
    try:
        with open_binary(path) as file:
            for number, line in enumerate(file, 1):
                yield number, line
    except DAMAGE as error:
        damage.add(str(path), f"after line {number}", error)


def open_binary(path: Path) -> BinaryIO:
    suffix = path.suffix.lower()
    if suffix in (".gz", ".tgz"):
        return gzip.open(path)  # type: ignore[return-value]
    if suffix == ".xz":
        return lzma.open(path)  # type: ignore[return-value]
    if suffix == ".bz2":
        return bz2.open(path)  # type: ignore[return-value]
    if suffix == ".zst":
        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"), _ZSTD_CHUNK)  # type: ignore[arg-type]
    return path.open("rb")


def _bz2_chunks(path: Path, damage: DamageReport) -> Iterator[bytes]:
    decompressor, position, pending, begun = bz2.BZ2Decompressor(), 0, b"", False
    with path.open("rb") as file:
        while chunk := pending or file.read(_CHUNK):
            pending, begun = b"", True
            try:
                yield decompressor.decompress(chunk)
            except (OSError, ValueError) as error:
                damage.add(str(path), f"near byte {position}", error)
                pending, skipped = _next_stream(chunk[1:], file)
                position += 1 + skipped
                decompressor, begun = bz2.BZ2Decompressor(), False
                yield b"\n"  # whatever line was cut ends here
                continue
            position += len(chunk)
            if decompressor.eof:
                pending = decompressor.unused_data
                position -= len(pending)
                decompressor, begun = bz2.BZ2Decompressor(), False
    if begun:
        damage.add(str(path), f"byte {position}", "the file ends in the middle of a stream")


def _next_stream(data: bytes, file: BinaryIO) -> tuple[bytes, int]:
    """Bytes from the next stream's magic on (empty at the end of the file), and how many were skipped."""
    skipped = 0
    while True:
        found = data.find(_BZ2_MAGIC)
        if found >= 0:
            return data[found:], skipped + found
        chunk = file.read(_CHUNK)
        if not chunk:
            return b"", skipped + len(data)
        keep = len(_BZ2_MAGIC) - 1
        skipped += max(0, len(data) - keep)
        data = data[-keep:] + chunk


def _numbered(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    number, rest = 0, b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            yield number, line + b"\n"
    if rest:
        yield number + 1, rest
