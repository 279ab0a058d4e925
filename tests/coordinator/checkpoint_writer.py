"""Writes checkpoints without pause in a child process, and starts another child when that one is killed.

One line of JSON per child on stdout: {"pid": …}. Forks instead of starting anew, because imports take seconds.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from coordinator.checkpoints import CheckpointStore, load_checkpoint
from data_prep.tokenizer import load_tokenizer
from tests.coordinator.test_checkpoints import SPEC, advance, new_state


def main() -> None:
    torch.set_num_threads(1)
    directory, tokenizer = Path(sys.argv[1]), load_tokenizer(Path(sys.argv[2]))
    while True:
        child = os.fork()
        if child == 0:
            write_without_pause(directory, tokenizer)
        print(json.dumps({"pid": child}), flush=True)
        os.waitpid(child, 0)


def write_without_pause(directory: Path, tokenizer) -> None:
    store, state = CheckpointStore(directory, SPEC.run_id, keep=3), new_state(tokenizer)
    newest = store.newest_intact()
    if newest is not None:
        load_checkpoint(newest, state)
    while True:
        advance(state)
        store.write(state, tokenizer, train_loss=None, heldout_loss=float(state.step))


if __name__ == "__main__":
    main()
