"""The LeanALBERT encoder as a Hugging Face model: initialisation, saving with its code, pooling.

A directory written by `save_pretrained` holds every source file of the model beside the weights, and its
`config.json` names them, so that `Auto...from_pretrained(dir, trust_remote_code=True)` works where this
project is not installed. These files import nothing but torch, transformers and each other.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .configuration_lean_albert import LeanAlbertConfig
from .layers_lean_albert import AdaptedLinear, LeanAlbertEmbeddings, LeanAlbertTransformer, SharedMatrix
from .packing_lean_albert import first_rows, positions_of

try:
    # transformers 5 skips tensors that were read from a checkpoint only if its own functions initialise
    from transformers import initialization as init
except ImportError:
    from torch.nn import init  # type: ignore[no-redef]

SOURCE_PATTERN = "*_lean_albert.py"


class DefaultInitLinear(nn.Linear):
    """A linear layer that keeps torch's own initialisation, as two heads of the published model do."""


class LeanAlbertPreTrainedModel(PreTrainedModel):
    """What all LeanALBERT models share: configuration, initialisation, saving."""

    config: LeanAlbertConfig
    config_class = LeanAlbertConfig
    base_model_prefix = "albert"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["LeanAlbertPair"]  # noqa: RUF012 (the type transformers asks for)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Normal(0, initializer_range) for matrices, 0 for biases (SmallInit by default)."""
        std = self.config.initializer_range
        if isinstance(module, DefaultInitLinear):
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            _init_embedding(module, std)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, SharedMatrix):
            for parameter in module.parameters(recurse=False):
                init.normal_(parameter, mean=0.0, std=std)
        elif isinstance(module, AdaptedLinear):
            _init_adapted_linear(module, std)

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> Any:
        """Save weights, configuration and the model's own code; see `PreTrainedModel.save_pretrained`."""
        if is_main_process:
            copy_sources(Path(save_directory))
        return super().save_pretrained(save_directory, is_main_process, *args, **kwargs)


def _init_embedding(module: nn.Embedding, std: float) -> None:
    init.normal_(module.weight, mean=0.0, std=std)
    loaded = getattr(module.weight, "_is_hf_initialized", False)
    if module.padding_idx is not None and not loaded:
        init.zeros_(module.weight[module.padding_idx])


def _init_adapted_linear(module: AdaptedLinear, std: float) -> None:
    if module.bias is not None:
        init.zeros_(module.bias)
    if module.adapter_first is not None and module.adapter_second is not None:
        init.normal_(module.adapter_first, mean=0.0, std=std)
        init.zeros_(module.adapter_second)  # LoRA: an adapter starts as no change


def copy_sources(directory: Path) -> None:
    """Copy the model's source files into `directory`, which is created if need be."""
    directory.mkdir(parents=True, exist_ok=True)
    for source in sorted(Path(__file__).parent.glob(SOURCE_PATTERN)):
        target = directory / source.name
        if source.resolve() != target.resolve():
            shutil.copyfile(source, target)


class LeanAlbertModel(LeanAlbertPreTrainedModel):
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
        self.embeddings = LeanAlbertEmbeddings(config)
        self.transformer = LeanAlbertTransformer(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
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
        given = input_ids if inputs_embeds is None else inputs_embeds
        if given is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if position_ids is None:
            position_ids = self._default_positions(given, sequence_ids)
        encoded = self.transformer(
            self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds),
            attention_mask,
            position_ids,
            sequence_ids,
            _flag(output_attentions, config.output_attentions),
            _flag(output_hidden_states, config.output_hidden_states),
            last_rows,
        )
        last = encoded.last_hidden_state
        output = BaseModelOutputWithPooling(
            last_hidden_state=last,
            pooler_output=self.pool(last, sequence_ids) if self.pooler and last_rows is None else None,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return output if wants_dict(config, return_dict) else output.to_tuple()

    def _default_positions(self, given: torch.Tensor, sequence_ids_BL: torch.Tensor | None) -> torch.Tensor:
        if sequence_ids_BL is not None:
            return positions_of(sequence_ids_BL)
        return torch.arange(given.shape[1], device=given.device)[None]

    def pool(self, last_BLD: torch.Tensor, sequence_ids_BL: torch.Tensor | None) -> torch.Tensor:
        """The pooled output [B, D], or [sequences, D] if packed."""
        return self.pool_rows(
            last_BLD.flatten(0, 1)[first_rows(last_BLD.shape[:2], sequence_ids_BL, last_BLD.device)]
        )

    def pool_rows(self, first: torch.Tensor) -> torch.Tensor:
        """The pooled output of first tokens [sequences, D]."""
        if self.pooler is None:
            raise ValueError("this model was made without a pooling layer")
        return self.pooler(first).tanh()


def _flag(given: bool | None, default: bool | None) -> bool:
    return bool(default if given is None else given)


def wants_dict(config: LeanAlbertConfig, return_dict: bool | None) -> bool:
    """Whether a forward pass answers with an output object and not with a tuple."""
    return _flag(return_dict, config.return_dict)
