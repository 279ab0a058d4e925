"""Beginning a new run with weights that were trained elsewhere: continued pre-training, on another domain for instance.

The weights may be another run's checkpoint, or any Hugging Face directory of a LeanALBERT with its tokenizer, such as
`model.convert_rulean_checkpoint` writes. They become the new run's first checkpoint, with a fresh optimizer. It is at
step 1 and not 0, for at step 0 a peer takes the spec's seed for the state and asks nobody.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from coordinator.checkpoints import Checkpoint, CheckpointStore
from data_prep.errors import DataError
from data_prep.tokenizer import load_tokenizer
from model import LeanAlbertShape
from model.shape_lean_albert import MODEL_TYPE
from swarm.errors import BadInput
from swarm.spec import ModelSpec, RunSpec
from swarm.training_state import TrainingState, build_model

FIRST_STEP = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
# beside the model's config, which a tokenizer's folder must not have, or transformers would run the model's code
TOKENIZER_FILES = "*token*.json"
# of the config: the shape of the weights, or what is computed with them
ARCHITECTURE = (
    *("embedding_size", "hidden_size", "num_hidden_layers", "num_hidden_groups", "num_inner_groups"),
    *("share_large_matrices", "num_inner_matrices", "adapter_dim", "lowrank_dim", "block_size"),
    *("num_attention_heads", "intermediate_size", "hidden_act", "hidden_act_gated", "attn_qkv_bias"),
    *("out_proj_bias", "sandwich_norm", "layer_norm_eps", "position_embedding_type", "type_vocab_size"),
    *("rotary_embedding_base", "tie_word_embeddings"),
)


def has_weights(folder: Path) -> bool:
    """Whether this is a Hugging Face directory with weights in one safetensors file."""
    return (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file()


def begin_with_weights(source: Path, store: CheckpointStore, spec: RunSpec, prepared: Path) -> Checkpoint:
    """Write the first checkpoint of a new run, with these weights and this tokenizer.

    :param prepared: folder of the tokenizer of the run's text, if that was prepared before
    :raises BadInput: the tokenizer or the weights cannot be read, the model is another one than the spec's, or the
        text was prepared with another tokenizer
    """
    tokenizer = _tokenizer_of(source)
    if prepared.exists() and load_tokenizer(prepared).get_vocab() != tokenizer.get_vocab():
        raise BadInput(
            f"the text in {prepared.parent} was prepared with another tokenizer than that of {source}: "
            "choose another --run-dir"
        )
    model = build_model(spec, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    _require_same_model(source, model.config)
    state = TrainingState(spec, model)
    try:
        state.load_named(FIRST_STEP, "", load_file(source / WEIGHTS), state.named_moments())
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        words = " ".join(str(error.args[0] if error.args else error).split())
        raise BadInput(f"the weights in {source} do not fit the spec's model: {words[:300]}") from None
    return store.write(state, tokenizer, train_loss=None, heldout_loss=None, more={"begun_with": source.name})


def _tokenizer_of(source: Path) -> PreTrainedTokenizerFast:
    with tempfile.TemporaryDirectory() as folder:
        for file in source.glob(TOKENIZER_FILES):
            shutil.copy(file, folder)
        try:
            return load_tokenizer(folder)
        except DataError as error:
            words = str(error).replace(folder, str(source))
            raise BadInput(f"--resume-from {source} has no tokenizer that can be used: {words}") from None


def _require_same_model(source: Path, ours: LeanAlbertShape) -> None:
    try:
        facts = json.loads((source / CONFIG).read_bytes())
        if (kind := facts.get("model_type")) != MODEL_TYPE:
            raise BadInput(f"the model in {source} is a {kind}, but a run trains a {MODEL_TYPE}")
        theirs = LeanAlbertShape.of(facts)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"{source / CONFIG} cannot be read: {error}") from None
    if theirs.vocab_size != ours.vocab_size:
        raise BadInput(
            f"the model in {source} has {theirs.vocab_size} pieces, its tokenizer {ours.vocab_size}: "
            "give the directory of a model with its own tokenizer"
        )
    for key in ARCHITECTURE:
        wanted, found = getattr(ours, key), getattr(theirs, key)
        if wanted != found:
            hint = (
                f"set model.{key} = {found}" if key in ModelSpec.model_fields else "the spec cannot say that"
            )
            raise BadInput(f"the model in {source} has {key} {found}, the run's has {wanted}: {hint}")
