"""Turn a checkpoint of the published RuLeanALBERT code into a LeanALBERT directory.

    python -m model.convert_rulean_checkpoint --state-dict state.pth --config config.json \\
        --tokenizer DIR --output DIR

The output appears whole or not at all. Tensors are read by safetensors, or by torch.load with
`weights_only=True`. Exit code 2: the input is bad, with one line on stderr that says how.
"""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.utils.logging import disable_progress_bar

from model.modeling_lean_albert import LeanAlbertForPreTraining
from model.published_config import CheckpointError, contradictions
from model.rulean_checkpoint import POSITION_BUFFERS, State, config_of, renamed


def read_state(path: Path) -> State:
    """The state dict in a .safetensors file, or in a .pth file with or without a `model` entry."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        with warnings.catch_warnings():  # torch warns of odd files that it then refuses
            warnings.simplefilter("ignore")
            content: Any = (
                load_file(path)
                if path.suffix == ".safetensors"
                else torch.load(path, map_location="cpu", weights_only=True)
            )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: damaged, or holds something other than weights, which is never unpickled"
        ) from error
    # a damaged file can break its reader anywhere
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError) as error:
        reason = f"{error}".partition(". ")[0] or type(error).__name__
        raise CheckpointError(
            f"{path}: not a whole file of tensors (.safetensors, or .pth of plain weights): {reason}"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(key, str) and torch.is_tensor(value) for key, value in content.items())
    ):
        raise CheckpointError(f"{path}: holds no state dict, neither by itself nor under 'model'")
    if all(key.startswith("module.") for key in content):  # saved from inside DistributedDataParallel
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return content


def read_config(path: Path) -> dict[str, Any]:
    """The published config.json."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: must hold one JSON object")
    return config


def convert(state: State, published: dict[str, Any]) -> LeanAlbertForPreTraining:
    """Our model with the weights of `state`; CheckpointError for a key too many, too few or misshapen."""
    for key, tensor in state.items():
        if key not in POSITION_BUFFERS:
            _check_values(key, tensor)
    config = config_of(state, published)
    tensors = renamed(state, config)
    with torch.device("meta"):
        model = LeanAlbertForPreTraining(config)
    expected = model.state_dict()
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise CheckpointError(f"{len(unknown)} keys fit nothing in LeanALBERT: {', '.join(unknown[:5])}")
    if missing := sorted(expected.keys() - tensors.keys()):
        raise CheckpointError(
            f"{len(missing)} tensors are missing from the checkpoint: {', '.join(missing[:5])}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, but it must be {tuple(expected[name].shape)}"
            raise CheckpointError(f"{name} has shape {shapes}")
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    model.tie_weights()
    return model.eval()


def _check_values(key: str, tensor: torch.Tensor) -> None:
    """Raise CheckpointError unless the tensor holds real, finite numbers."""
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.is_floating_point()
    if not plain:
        kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
        raise CheckpointError(f"{key} is no plain tensor of weights ({kind})")
    if not bool(tensor.isfinite().all()):
        raise CheckpointError(f"{key} holds values that are not finite: the weights are damaged")


def write(model: LeanAlbertForPreTraining, tokenizer: Path | None, output: Path) -> None:
    """Save model (and tokenizer) as directory `output`, which must be new or empty."""
    if output.is_symlink() or (output.exists() and (not output.is_dir() or any(output.iterdir()))):
        raise CheckpointError(
            f"{output}: exists already and is not an empty directory; choose another --output"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        if tokenizer is not None:
            copy_tokenizer(tokenizer, partial, model.config.vocab_size)
        disable_progress_bar()
        model.save_pretrained(partial)
        partial.chmod(0o755)
        partial.rename(output)
    except SafetensorError as error:  # what it makes of a full disk
        raise OSError(str(error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # nothing, once it was renamed


def copy_tokenizer(source: Path, target: Path, vocab_size: int) -> None:
    """Save the tokenizer of directory `source` into `target`; more tokens than embeddings is an error."""
    from transformers import AutoTokenizer

    if not source.is_dir():
        raise CheckpointError(f"{source}: no directory of a tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    # the tokenizers library raises bare Exceptions
    except Exception as error:
        reason = f"{error}".partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{source}: no tokenizer could be read there: {reason}") from error
    if len(tokenizer) > vocab_size:
        raise CheckpointError(
            f"{source}: {len(tokenizer)} tokens, but the checkpoint embeds only {vocab_size}"
        )
    tokenizer.save_pretrained(target)


def _complain(word: str, message: object) -> None:
    print(f"{word}: {' '.join(str(message).split())}", file=sys.stderr)  # a key may contain anything


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m model.convert_rulean_checkpoint",
        description="Convert a published RuLeanALBERT checkpoint.",
    )
    parser.add_argument(
        "--state-dict", type=Path, required=True, help=".pth with {'model': ...}, or .safetensors"
    )
    parser.add_argument("--config", type=Path, required=True, help="config.json of the checkpoint")
    parser.add_argument("--tokenizer", type=Path, help="directory of its tokenizer, copied along")
    parser.add_argument("--output", type=Path, required=True, help="directory to make")
    given = parser.parse_args(arguments)
    try:
        state, published = read_state(given.state_dict), read_config(given.config)
        model = convert(state, published)
        write(model, given.tokenizer, given.output)
    except CheckpointError as error:
        _complain("error", error)
        return 2
    except OSError as error:
        _complain("error", f"{given.output}: could not be written: {error.strerror or error}")
        return 1
    if told := contradictions(model.config, published):
        _complain("note", f"{given.config} says {', '.join(told)}; the tensors were believed: is it theirs?")
    print(f"{given.output}: {model.num_parameters():,} parameters, {model.config.num_hidden_layers} layers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
