"""What fine-tuning takes in memory: parameters, gradients, optimizer, and what a step keeps for its backward pass.

Prints, for RuCoLA at batch 32 with a model of RuLeanALBERT's published size (hidden 4096, 32 layers), the bytes
that any device has to hold. Nothing is computed: the tensors are torch's fake ones, which have shapes only, and
every tensor that autograd saves is counted once by its storage. Kernels' scratch memory is not in it.
That the count is right is checked in the same run: for a small model on this CPU it is set beside the growth of
the resident set in a real step.

    python -m benchmarks.finetune_memory [--length 48] [--batch-size 32]
"""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.interleaved import print_table
from model import LeanAlbertConfig, LeanAlbertForSequenceClassification
from model.peak_memory import PeakMemory

GIB = 2**30
# RuCoLA's sentences have 19 tokens in the mean and 67 at most (12,000 pieces); a batch is as long as its longest
LENGTH, BATCH_SIZE = 48, 32
SMALL = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}


def saved_bytes(model: nn.Module, batch_size: int, length: int, dtype: torch.dtype | None) -> int:
    """Bytes that a forward pass keeps for backward, besides the parameters; under autocast if a dtype is given."""
    known = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, tuple[torch.Tensor, int]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            kept[storage._cdata] = (tensor, storage.nbytes())  # held, so that its address is not used again
        return tensor

    ids = torch.ones((batch_size, length), dtype=torch.long)
    labels = torch.zeros(batch_size, dtype=torch.long)
    # no attention mask: its bytes are few, and fake tensors cannot be asked whether they are all ones
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        loss = model(input_ids=ids, labels=labels).loss
    del loss
    return sum(size for _, size in kept.values())


def check_on_this_machine(batch_size: int, length: int) -> tuple[int, int]:
    """Counted and measured bytes of one step of a small model."""
    config = LeanAlbertConfig(vocab_size=8192, **SMALL)
    with FakeTensorMode():
        counted = saved_bytes(LeanAlbertForSequenceClassification(config).train(), batch_size, length, None)
    model = LeanAlbertForSequenceClassification(config)
    ids = torch.ones((batch_size, length), dtype=torch.long)
    model(input_ids=ids[:1], labels=torch.zeros(1, dtype=torch.long)).loss.backward()  # gradients are there
    memory = PeakMemory("cpu")
    loss = model(input_ids=ids, labels=torch.zeros(batch_size).long()).loss
    measured = memory.peak_bytes()
    del loss
    return counted, measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=LENGTH)
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    words = parser.parse_args()
    counted, measured = check_on_this_machine(words.batch_size, 4 * words.length)
    print(
        f"check on a small model: counted {counted / GIB:.2f} GiB, resident set grew by {measured / GIB:.2f} GiB"
    )
    config = LeanAlbertConfig()
    rows = []
    for name, dtype in (("fp32", None), ("mixed precision", torch.bfloat16)):
        for checkpointing in (False, True):
            with FakeTensorMode():
                model = LeanAlbertForSequenceClassification(config).train()
                parameters = sum(p.numel() for p in model.parameters())
                if checkpointing:
                    model.gradient_checkpointing_enable(
                        gradient_checkpointing_kwargs={"use_reentrant": False}
                    )
                activations = saved_bytes(model, words.batch_size, words.length, dtype)
            # autocast's half-precision copies of the weights are among the saved tensors
            weights = parameters * 4
            for optimizer, a_parameter in (("adamw", 8), ("adamw_8bit", 2)):
                total = weights + parameters * 4 + parameters * a_parameter + activations
                rows.append(
                    (
                        name,
                        optimizer,
                        "yes" if checkpointing else "no",
                        f"{(weights + parameters * 4 + parameters * a_parameter) / GIB:.1f}",
                        f"{activations / GIB:.1f}",
                        f"{total / GIB:.1f}",
                    )
                )
    print(
        f"RuCoLA, batch {words.batch_size} of {words.length} tokens, {parameters / 1e6:.0f} million parameters"
    )
    print_table(
        ("precision", "optimizer", "checkpointing", "weights+gradients+moments", "saved for backward", "GiB"),
        rows,
    )


if __name__ == "__main__":
    main()
