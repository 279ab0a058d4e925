"""LeanALBERT as a Hugging Face model, and its optimizer. Knows nothing of text or networks."""

from model.configuration_lean_albert import LeanAlbertConfig
from model.encoder_lean_albert import LeanAlbertModel
from model.heads_lean_albert import (
    LeanAlbertForMultipleChoice,
    LeanAlbertForQuestionAnswering,
    LeanAlbertForSequenceClassification,
    LeanAlbertForTokenClassification,
)
from model.lamb import Lamb, parameter_groups
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
    "parameter_groups",
]
