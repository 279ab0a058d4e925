"""LeanALBERT, plain and as a Hugging Face model, and its optimizer. Knows nothing of text or networks.

What needs transformers is imported when it is asked for: that takes longer than everything else at a peer's start.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from model.lamb import Lamb, parameter_groups
from model.network_lean_albert import LeanAlbertNetwork
from model.shape_lean_albert import LeanAlbertShape

if TYPE_CHECKING:
    from model.configuration_lean_albert import LeanAlbertConfig
    from model.encoder_lean_albert import LeanAlbertModel
    from model.heads_lean_albert import (
        LeanAlbertForMultipleChoice,
        LeanAlbertForQuestionAnswering,
        LeanAlbertForSequenceClassification,
        LeanAlbertForTokenClassification,
    )
    from model.modeling_lean_albert import LeanAlbertForMaskedLM, LeanAlbertForPreTraining

__all__ = [
    "Lamb",
    "LeanAlbertConfig",
    "LeanAlbertForMaskedLM",
    "LeanAlbertForMultipleChoice",
    "LeanAlbertForPreTraining",
    "LeanAlbertForQuestionAnswering",
    "LeanAlbertForSequenceClassification",
    "LeanAlbertForTokenClassification",
    "LeanAlbertModel",
    "LeanAlbertNetwork",
    "LeanAlbertShape",
    "parameter_groups",
]


def __getattr__(name: str) -> Any:
    """The names that need transformers (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    file = "configuration" if name == "LeanAlbertConfig" else "modeling"
    return getattr(importlib.import_module(f"model.{file}_lean_albert"), name)
