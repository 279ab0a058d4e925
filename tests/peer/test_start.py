"""A peer starts without what takes long to import: one that was killed is back the sooner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.scenarios.swarm_under_test import ROOT

# scipy is not among them: hivemind divides the work of a round with it
NEEDED_BY_OTHERS = {
    "accelerate",
    "datasets",
    "fastapi",
    "huggingface_hub",
    "matplotlib",
    "pandas",
    "plotly",
    "sklearn",
    "sympy",
    "torch._dynamo",
    "torch._inductor",
    "transformers",
    "uvicorn",
}

# all that a peer does until its first global step, but for the network
LIFE = """
import sys
from pathlib import Path
import peer.cli, peer.node.devices, peer.preemption
import peer.join, peer.reporting
import torch
from data_prep.vocabulary import read_vocabulary
from peer.accumulator import Accumulator
from peer.device import choose_device, inspect_device, prepare_compute
from peer.device_readings import read_devices
from peer.micro_batches import MicroBatches
from peer.samples import open_samples
from swarm.bundle import HELDOUT_NAME, TOKENIZER_FOLDER
from swarm.evaluation import HeldoutEvaluator
from swarm.spec import load_spec
from swarm.training_state import TrainingState, build_model

spec, bundle, cache = load_spec(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
device = choose_device("cpu")
facts = inspect_device(device, None)
vocabulary = read_vocabulary(bundle / TOKENIZER_FOLDER)
model = build_model(spec, vocab_size=len(vocabulary), pad_token_id=vocabulary.pad_token_id)
state = TrainingState(spec, model, device)
state.load(state.snapshot())
HeldoutEvaluator(bundle / HELDOUT_NAME).probe(state)
samples = open_samples(
    spec, vocabulary, bundle, cache, "somebody", lambda: {"somebody": 1.0}, batch_size=4, warn=print)
prepare_compute(state.model, device, compiled=False)
accumulator = Accumulator(state.model_parameters)
state.model.train()
assert MicroBatches(state.model, samples, accumulator, device, facts.precision, print).compute(0) == 4
state.apply_gradients(accumulator.sums(), "")
read_devices(("cpu",))
peer.reporting.make_reporter(True).close()
samples.close()
print(*sys.modules)
"""


def run(program: str, *arguments: object) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_nothing_is_imported_that_others_need(prepared_data: Path, make_spec, tmp_path: Path) -> None:
    imported = set(run(LIFE, make_spec(), prepared_data, tmp_path).splitlines()[-1].split())
    assert "hivemind" in imported
    assert not imported & NEEDED_BY_OTHERS
