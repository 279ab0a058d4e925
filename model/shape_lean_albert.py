"""The shape of a LeanALBERT: depth without parameters, in the layout of the published RuLeanALBERT.

The field names are those of the published `config.json`, so that its values can be taken over unchanged. The layers
need this and not transformers, whose import takes longer than everything else at the start of a peer.
Impossible combinations raise `ValueError` at construction, naming the field.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

MODEL_TYPE = "lean_albert"


class LeanAlbertShape:
    """Shape and behaviour of a LeanALBERT model.

    `num_hidden_layers` layers are spread over `num_hidden_groups` parameter groups; a group applies
    `num_inner_groups` (attention, feed-forward) pairs each time it is used. With `share_large_matrices`
    the big matrices are shared also between groups (True: one set; a number: that many sets), each set
    holding `num_inner_matrices` matrices used in turn, while norms, biases and adapters stay per pair.

    Example:
        >>> shape = LeanAlbertShape(hidden_size=256, num_hidden_layers=6, num_attention_heads=4)
        >>> shape.num_pairs, shape.matrix_index(0)
        (1, 0)
    """

    def __init__(
        self,
        vocab_size: int = 50000,
        embedding_size: int = 128,
        hidden_size: int = 4096,
        num_hidden_layers: int = 32,
        num_hidden_groups: int = 1,
        num_inner_groups: int = 1,
        share_large_matrices: bool | int = False,
        num_inner_matrices: int = 1,
        adapter_dim: int = 0,
        lowrank_dim: int = 0,
        block_size: int = 0,
        num_attention_heads: int = 64,
        intermediate_size: int = 16384,
        hidden_act: str = "gelu_fused",
        hidden_act_gated: bool = True,
        attn_qkv_bias: bool = True,
        out_proj_bias: bool | None = None,
        sandwich_norm: bool = False,
        hidden_dropout_prob: float = 0.0,
        attention_probs_dropout_prob: float = 0.0,
        classifier_dropout_prob: float = 0.0,
        layer_norm_eps: float = 1e-12,
        position_embedding_type: str = "rotary",
        rotary_embedding_base: float = 10000,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        initializer_range: float | None = None,
        pad_token_id: int | None = 0,
        bos_token_id: int | None = 2,
        eos_token_id: int | None = 3,
        tie_word_embeddings: bool = True,
    ) -> None:
        self.vocab_size = vocab_size
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_hidden_groups = num_hidden_groups
        self.num_inner_groups = num_inner_groups
        self.share_large_matrices = share_large_matrices
        self.num_inner_matrices = num_inner_matrices
        self.adapter_dim = adapter_dim
        self.lowrank_dim = lowrank_dim
        self.block_size = block_size
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_act_gated = hidden_act_gated
        self.attn_qkv_bias = attn_qkv_bias
        self.out_proj_bias = (not sandwich_norm) if out_proj_bias is None else out_proj_bias
        self.sandwich_norm = sandwich_norm
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.classifier_dropout_prob = classifier_dropout_prob
        self.layer_norm_eps = layer_norm_eps
        self.position_embedding_type = position_embedding_type
        self.rotary_embedding_base = rotary_embedding_base
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        # SmallInit (Nguyen & Salazar 2019, section 2.2): keeps a deep pre-norm stack stable at start
        self.initializer_range = (
            math.sqrt(2 / (5 * hidden_size)) if initializer_range is None else initializer_range
        )
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.tie_word_embeddings = tie_word_embeddings
        self._check()

    def _check(self) -> None:
        if self.block_size:
            raise ValueError("block_size: block-sparse matrices are not supported, only 0 (dense)")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.position_embedding_type not in ("rotary", "absolute"):
            raise ValueError(
                f"position_embedding_type {self.position_embedding_type!r}: choose 'rotary' or 'absolute'"
            )
        if self.position_embedding_type == "rotary" and self.head_size % 2:
            raise ValueError(
                f"rotary positions need an even head size, hidden_size / heads is {self.head_size}"
            )
        if not 1 <= self.num_hidden_groups <= self.num_hidden_layers:
            raise ValueError(
                f"num_hidden_groups {self.num_hidden_groups} must lie between 1 and "
                f"num_hidden_layers {self.num_hidden_layers}"
            )
        if not self.share_large_matrices and self.num_inner_matrices != 1:
            raise ValueError("num_inner_matrices above 1 needs share_large_matrices")
        if self.num_matrices > self.num_pairs:
            raise ValueError(
                f"share_large_matrices x num_inner_matrices gives {self.num_matrices} matrices for "
                f"{self.num_pairs} pairs (num_hidden_groups x num_inner_groups): some would never be used"
            )

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def num_pairs(self) -> int:
        """Number of (attention, feed-forward) pairs with norms and biases of their own."""
        return self.num_hidden_groups * self.num_inner_groups

    @property
    def num_matrix_sets(self) -> int:
        """Number of consecutive sets the big matrices come in."""
        return int(self.share_large_matrices) if self.share_large_matrices else self.num_pairs

    @property
    def num_matrices(self) -> int:
        """Number of distinct big matrices of each kind."""
        return self.num_matrix_sets * self.num_inner_matrices

    def group_index(self, layer: int) -> int:
        """Parameter group that layer `layer` uses."""
        return int(layer / (self.num_hidden_layers / self.num_hidden_groups))

    def matrix_index(self, pair: int) -> int:
        """Big matrices that pair `pair` of `num_pairs` uses."""
        first_of_set = pair * self.num_matrix_sets // self.num_pairs * self.num_inner_matrices
        return first_of_set + pair % self.num_inner_matrices

    def fields(self) -> dict[str, Any]:
        """What this was constructed with, and may be again; what was left to be chosen is chosen."""
        return {name: getattr(self, name) for name in FIELD_NAMES}

    @staticmethod
    def of(values: dict[str, Any]) -> LeanAlbertShape:
        """The shape in a `config.json`, which knows more than that; raises ValueError or TypeError."""
        return LeanAlbertShape(**{name: value for name, value in values.items() if name in FIELD_NAMES})


FIELD_NAMES = tuple(inspect.signature(LeanAlbertShape).parameters)
