"""Configuration of LeanALBERT for transformers: its shape, and where the code that travels with the weights lies."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

from .shape_lean_albert import FIELD_NAMES, MODEL_TYPE, LeanAlbertShape

MODEL_MODULE = "modeling_lean_albert"

AUTO_MAP = {
    "AutoConfig": "configuration_lean_albert.LeanAlbertConfig",
    "AutoModel": f"{MODEL_MODULE}.LeanAlbertModel",
    "AutoModelForPreTraining": f"{MODEL_MODULE}.LeanAlbertForPreTraining",
    "AutoModelForMaskedLM": f"{MODEL_MODULE}.LeanAlbertForMaskedLM",
    "AutoModelForSequenceClassification": f"{MODEL_MODULE}.LeanAlbertForSequenceClassification",
    "AutoModelForTokenClassification": f"{MODEL_MODULE}.LeanAlbertForTokenClassification",
    "AutoModelForQuestionAnswering": f"{MODEL_MODULE}.LeanAlbertForQuestionAnswering",
    "AutoModelForMultipleChoice": f"{MODEL_MODULE}.LeanAlbertForMultipleChoice",
}
KNOWN_TO_TRANSFORMERS = ("pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings")


class LeanAlbertConfig(LeanAlbertShape, PretrainedConfig):
    """A `LeanAlbertShape` that transformers can load and save; takes its arguments and those of `PretrainedConfig`.

    Example:
        >>> config = LeanAlbertConfig(hidden_size=256, num_hidden_layers=6, num_attention_heads=4, num_labels=3)
        >>> config.num_pairs, config.num_labels
        (1, 3)
    """

    model_type = MODEL_TYPE

    def __init__(self, **kwargs: Any) -> None:
        LeanAlbertShape.__init__(self, **{name: kwargs.pop(name) for name in FIELD_NAMES if name in kwargs})
        # through the base class as well: older transformers would set these to its own defaults otherwise
        kwargs |= {name: getattr(self, name) for name in KNOWN_TO_TRANSFORMERS}
        # the code always travels with the weights, so a repository prefix left by a download must not survive
        kwargs["auto_map"] = dict(AUTO_MAP)
        PretrainedConfig.__init__(self, **kwargs)
