"""The LeanALBERT encoder as a Hugging Face model: initialisation, saving with its code, pooling.

A directory written by `save_pretrained` holds every source file of the model beside the weights, and its
`config.json` names them, so that `Auto...from_pretrained(dir, trust_remote_code=True)` works where this
project is not installed. These files import nothing but torch, transformers and each other.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .configuration_lean_albert import LeanAlbertConfig
from .network_lean_albert import EncoderMixin, init_weights

try:
    # transformers 5 skips tensors that were read from a checkpoint only if its own functions initialise
    from transformers import initialization as init
except ImportError:
    from torch.nn import init  # type: ignore[no-redef]

SOURCE_PATTERN = "*_lean_albert.py"


class LeanAlbertPreTrainedModel(PreTrainedModel):
    """What all LeanALBERT models share: configuration, initialisation, saving."""

    config: LeanAlbertConfig
    config_class = LeanAlbertConfig
    base_model_prefix = "albert"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["LeanAlbertPair"]  # noqa: RUF012 (the type transformers asks for)

    def _init_weights(self, module: nn.Module) -> None:
        init_weights(module, self.config.initializer_range, init)

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> Any:
        """Save weights, configuration and the model's own code; see `PreTrainedModel.save_pretrained`."""
        if is_main_process:
            copy_sources(Path(save_directory))
        return super().save_pretrained(save_directory, is_main_process, *args, **kwargs)


def copy_sources(directory: Path) -> None:
    """Copy the model's source files into `directory`, which is created if need be."""
    directory.mkdir(parents=True, exist_ok=True)
    for source in sorted(Path(__file__).parent.glob(SOURCE_PATTERN)):
        target = directory / source.name
        if source.resolve() != target.resolve():
            shutil.copyfile(source, target)


class LeanAlbertModel(EncoderMixin, LeanAlbertPreTrainedModel):
    """LeanALBERT without a head.

    Packing: `sequence_ids` [B, L] numbers the sequences of a row from 1 on, 0 is padding. Attention then
    stays within a sequence, positions restart with each, and the pooled output has one row per sequence,
    in reading order, instead of one per batch row.

    Example:
        >>> config = LeanAlbertConfig(hidden_size=64, num_attention_heads=4, intermediate_size=128)
        >>> model = LeanAlbertModel(config)
        >>> output = model(torch.tensor([[2, 17, 9, 3]]))
        >>> output.last_hidden_state.shape, output.pooler_output.shape
        (torch.Size([1, 4, 64]), torch.Size([1, 64]))
    """

    def __init__(self, config: LeanAlbertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.add_layers(config, pooling=add_pooling_layer)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings.word_embeddings = value  # type: ignore[assignment]

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        sequence_ids: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        last_rows: torch.Tensor | None = None,
    ) -> BaseModelOutputWithPooling | tuple:
        """Encode ids [B, L], or embeddings [B, L, E] before type and position are added.

        Where only some positions matter in the end, their flat numbers `last_rows` (row * L + column) save
        most of the last layer: `last_hidden_state` is then [rows, D] and nothing is pooled.
        `attention_mask` [B, L] (or [B, L, L]) is integer or bool, 1 where attending is allowed.
        Raises ValueError unless exactly one of `input_ids` and `inputs_embeds` is given.
        """
        config = self.config
        attentions_wanted = _flag(output_attentions, config.output_attentions)
        encoded = self.encode(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            sequence_ids,
            explicit=attentions_wanted or config._attn_implementation == "eager",
            output_hidden_states=_flag(output_hidden_states, config.output_hidden_states),
            last_rows=last_rows,
        )
        output = BaseModelOutputWithPooling(
            last_hidden_state=encoded.last_hidden_state,
            pooler_output=encoded.pooler_output,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions if attentions_wanted else None,
        )
        return output if wants_dict(config, return_dict) else output.to_tuple()


def _flag(given: bool | None, default: bool | None) -> bool:
    return bool(default if given is None else given)


def wants_dict(config: LeanAlbertConfig, return_dict: bool | None) -> bool:
    """Whether a forward pass answers with an output object and not with a tuple."""
    return _flag(return_dict, config.return_dict)
