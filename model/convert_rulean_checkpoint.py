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
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from model.modeling_lean_albert import LeanAlbertForPreTraining
from model.rulean_checkpoint import CheckpointError, State, config_of, renamed


def read_state(path: Path) -> State:
    """The state dict in a .safetensors file, or in a .pth file with or without a `model` entry."""
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: not a file of tensors (.safetensors, or .pth of plain weights): {reason}"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not content or not all(torch.is_tensor(v) for v in content.values()):
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
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: must hold one JSON object")
    return config


def convert(state: State, published: dict[str, Any]) -> LeanAlbertForPreTraining:
    """Our model with the weights of `state`; CheckpointError for a key too many, too few or misshapen."""
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
            shapes = f"{tuple(tensor.shape)}, but config.json makes it {tuple(expected[name].shape)}"
            raise CheckpointError(f"{name} has shape {shapes}")
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    model.tie_weights()
    return model.eval()


def write(model: LeanAlbertForPreTraining, tokenizer: Path | None, output: Path) -> None:
    """Save model (and tokenizer) as directory `output`, which must be new or empty."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CheckpointError(
            f"{output}: exists already and is not an empty directory; choose another --output"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as partial:
        model.save_pretrained(partial)
        if tokenizer is not None:
            copy_tokenizer(tokenizer, Path(partial), model.config.vocab_size)
        Path(partial).chmod(0o755)
        if output.exists():
            output.rmdir()
        shutil.copytree(partial, f"{partial}.done", copy_function=shutil.move)
        Path(f"{partial}.done").rename(output)


def copy_tokenizer(source: Path, target: Path, vocab_size: int) -> None:
    """Save the tokenizer of directory `source` into `target`; more tokens than embeddings is an error."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{source}: no tokenizer could be read there: {str(error).splitlines()[0]}"
        ) from error
    if len(tokenizer) > vocab_size:
        raise CheckpointError(
            f"{source}: {len(tokenizer)} tokens, but the checkpoint embeds only {vocab_size}"
        )
    tokenizer.save_pretrained(target)


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
        model = convert(read_state(given.state_dict), read_config(given.config))
        write(model, given.tokenizer, given.output)
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {given.output}: could not be written: {error.strerror or error}", file=sys.stderr)
        return 1
    print(f"{given.output}: {model.num_parameters():,} parameters, {model.config.num_hidden_layers} layers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
