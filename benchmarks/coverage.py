"""How much of the text peers have seen together when they have read as much as all of it.

    python benchmarks/coverage.py [--peers 16] [--documents 20000]

Compares streams with an order of their own each (a seed from the peer id) to streams with places in one
common order. Every document of the test corpus is one distinct token, so coverage can be counted exactly.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from data_prep.flow import DocumentFlow
from data_prep.place import Place
from data_prep.seeds import stream_seed
from data_prep.shards import ShardReader, ShardWriter, TokenizedDocument


def coverage(flows: list[DocumentFlow], documents: int, share: float) -> float:
    """Share of documents seen once the flows have together read ``share`` of the corpus (in documents)."""
    each = int(share * documents) // len(flows)
    seen = [np.unique(flow.take(2 * each)) for flow in flows]  # a document is a token and a separator
    return float(np.count_nonzero(np.unique(np.concatenate(seen)))) / documents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, default=16)
    parser.add_argument("--documents", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        writer = ShardWriter(Path(folder), "a", vocab_size=1 << 31, block_tokens=32)
        for token in range(1, options.documents + 1):
            writer.write(TokenizedDocument(np.array([token]), np.array([1])))
        readers = [ShardReader(Path(folder) / entry.file) for entry in writer.close()]
        peers = range(options.peers)
        seeds = [stream_seed(0, f"peer {peer}") for peer in peers]
        for share in (0.25, 0.5, 1.0):
            alone = [DocumentFlow(readers, seed=seed, separator_id=0) for seed in seeds]
            spread = [
                DocumentFlow(readers, seed=seed, separator_id=0, order=Place(0, peer).order(readers, "a"))
                for peer, seed in zip(peers, seeds, strict=True)
            ]
            print(
                f"{options.peers} peers have read {share:4.0%} of the corpus: "
                f"own order {coverage(alone, options.documents, share) / share:6.1%} of that distinct, "
                f"places {coverage(spread, options.documents, share) / share:6.1%}"
            )


if __name__ == "__main__":
    main()
