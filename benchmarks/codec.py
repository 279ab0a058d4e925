"""Our 8-bit codec of gradients against hivemind's, whose messages it writes.

    python -m benchmarks.codec [--values 125000] [--rounds 15]

Nanoseconds of processor time a value, one thread, in turns in one process; a round of n peers codes and decodes every
value about twice for each of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import torch
from hivemind.compression import CompressionInfo, Uniform8BitQuantization

from benchmarks.interleaved import median_ratio, print_table, time_in_turns
from swarm.uniform_8bit import Uniform8Bit

OURS, THEIRS = "ours", "hivemind's"
CALLS = 20


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--values", type=int, default=125_000, help="of a part; the default is that at 100 Mbit/s"
    )
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")
    values = torch.randn(given.values)
    info = CompressionInfo.from_tensor(values)
    codecs = {OURS: Uniform8Bit(), THEIRS: Uniform8BitQuantization()}
    message = codecs[OURS].compress(values, info)
    work = {
        "code": {name: lambda codec=codec: codec.compress(values, info) for name, codec in codecs.items()},
        "decode": {name: lambda codec=codec: codec.extract(message) for name, codec in codecs.items()},
    }
    rows = []
    for what, competitors in work.items():
        repeated = {
            name: lambda call=call: [call() for _ in range(CALLS)] for name, call in competitors.items()
        }
        seconds = time_in_turns(repeated, given.rounds, clock=time.process_time)  # type: ignore[arg-type]
        times = [statistics.median(seconds[name]) / CALLS / given.values * 1e9 for name in codecs]
        rows.append(
            (what, *(f"{value:.2f}" for value in times), f"{median_ratio(seconds, THEIRS, OURS):.1f}x")
        )
    print_table(("ns a value", OURS, THEIRS, "faster"), rows)


if __name__ == "__main__":
    main()
