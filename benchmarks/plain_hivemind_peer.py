"""The competitor of `benchmarks.peer_start`: the shortest peer that hivemind's own `Optimizer` makes.

An ALBERT of transformers of the demo's size on made-up ids. Prints the events of `peer join --json`: `joined`,
`synced`, and `step` once it has taken part in one. Without an address it begins a swarm, makes one step, and then only
serves its state.
"""

from __future__ import annotations

import json
import sys
import time

import hivemind
import torch
from transformers import AlbertConfig, AlbertForMaskedLM

VOCABULARY, LENGTH, MICRO_BATCH, TARGET_BATCH = 4096, 48, 16, 256
SIZES = {
    "embedding_size": 128,
    "hidden_size": 192,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}


def main() -> None:
    """`argv[1:]`: addresses of the swarm."""
    addresses = sys.argv[1:]
    dht = hivemind.DHT(initial_peers=addresses or None, host_maddrs=["/ip4/127.0.0.1/tcp/0"], start=True)
    model = AlbertForMaskedLM(AlbertConfig(vocab_size=VOCABULARY, **SIZES)).train()
    optimizer = hivemind.Optimizer(
        dht=dht,
        run_id="peer-start",
        params=model.parameters(),
        optimizer=torch.optim.Adam,
        batch_size_per_step=MICRO_BATCH,
        target_batch_size=TARGET_BATCH,
        matchmaking_time=2.5,
        averaging_timeout=20.0,
        tracker_opts={"min_refresh_period": 0.5, "default_refresh_period": 1.0},
    )
    say("joined", addresses=[str(address) for address in dht.get_visible_maddrs()])
    if addresses:
        optimizer.load_state_from_peers()
    say("synced", global_step=optimizer.local_epoch)
    train_one_step(model, optimizer)
    say("step", global_step=optimizer.local_epoch)
    time.sleep(1e6)


def train_one_step(model: AlbertForMaskedLM, optimizer: hivemind.Optimizer) -> None:
    """Until the swarm, that is we, have a batch together."""
    before = optimizer.local_epoch
    while optimizer.local_epoch == before:
        ids = torch.randint(5, VOCABULARY, (MICRO_BATCH, LENGTH))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def say(event: str, **facts: object) -> None:
    """One line of JSON."""
    print(json.dumps({"event": event, **facts}), flush=True)
