"""A peer that trains with `hivemind.Optimizer` as it is, at its defaults, with the same stand-in for computing."""

from __future__ import annotations

import os
import time

import hivemind
import torch

from benchmarks.links.stand_in import SAMPLES, Computing, hear, say, sent_bytes
from swarm.spec import RunSpec
from swarm.training_state import build_model


def main() -> None:
    """Obey: join, and when told so make the steps and say what they took."""
    torch.set_num_threads(1)
    setup = hear()
    spec = RunSpec.model_validate_json(setup["spec"])
    dht = hivemind.DHT(
        initial_peers=setup["initial_peers"],
        host_maddrs=["/ip4/0.0.0.0/tcp/0"],
        start=True,
        startup_timeout=60,
    )
    model = build_model(spec, vocab_size=spec.data.vocab_size, pad_token_id=0)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = hivemind.Optimizer(
        dht=dht,
        run_id="links",
        target_batch_size=spec.training.target_batch_size,
        batch_size_per_step=SAMPLES,
        params=parameters,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-5),
    )
    say(addresses=[str(address) for address in dht.get_visible_maddrs()])
    hear()
    say(ready=True)
    hear()
    computing = Computing(parameters, setup["micro_batch_seconds"])
    steps: list[dict[str, float]] = []
    while len(steps) < setup["steps"]:
        epoch = optimizer.local_epoch
        computing.micro_batch()
        optimizer.step()
        if optimizer.local_epoch != epoch:
            steps.append(
                {
                    "end": time.monotonic(),
                    "computed": computing.seconds,
                    "sent": sent_bytes(),
                    "group": optimizer.tracker.global_progress.num_peers,
                }
            )
    say(steps=steps)
    hear()
    os._exit(0)


if __name__ == "__main__":
    main()
