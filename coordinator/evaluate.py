"""`coordinator evaluate`: scores a checkpoint of a run directory, in this process and beside a running coordinator."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from coordinator.checkpoints import load_checkpoint
from coordinator.export import choose_checkpoint
from coordinator.run_directory import RunDirectory
from data_prep.tokenizer import load_tokenizer
from swarm.bundle import HELDOUT_NAME, TOKENIZER_FOLDER
from swarm.errors import BadInput
from swarm.evaluation import HeldoutEvaluator, pseudo_perplexity
from swarm.process_limits import yield_to_others
from swarm.spec import load_spec
from swarm.training_state import TrainingState, build_model


def evaluate_checkpoint(run_dir: Path, wanted: str, pseudo_rows: int) -> dict[str, Any]:
    """Scores by name; `pseudo_loss` and `pseudo_tokens` only if `pseudo_rows` is not 0; raises `BadInput`."""
    directory = RunDirectory(run_dir)
    if not directory.spec_path.is_file():
        raise BadInput(f"{run_dir} has no run.toml: give the --run-dir that `coordinator run` printed")
    spec = load_spec(directory.spec_path)
    chosen = choose_checkpoint(directory.checkpoints_path, wanted)
    bundle = directory.bundle_path
    if not bundle.is_dir():  # a further coordinator's
        bundle = next(iter(sorted(directory.cache_path.glob("bundles/*/"))), bundle)
    tokenizer = load_tokenizer(bundle / TOKENIZER_FOLDER)
    yield_to_others()
    model = build_model(spec, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    state = TrainingState(spec, model)
    load_checkpoint(chosen, state)
    evaluation = HeldoutEvaluator(bundle / HELDOUT_NAME).evaluate(state)
    found = {"step": chosen.step, **asdict(evaluation)}
    if pseudo_rows:
        special = frozenset((tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id))
        score = pseudo_perplexity(model, bundle / HELDOUT_NAME, tokenizer.mask_token_id, special, pseudo_rows)
        found |= {"pseudo_loss": score.loss, "pseudo_tokens": score.tokens}
    return found
