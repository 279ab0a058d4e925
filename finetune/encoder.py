"""What `--model` names: a checkpoint directory of a run, any Hugging Face directory, or a hub id.

LeanALBERT is registered with transformers' Auto classes, so its checkpoints load without running the code
that lies beside their weights; other models' own code runs only if the user allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerFast

import model as lean_albert
from finetune.errors import BadInput

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)
# these count positions from the padding id on, so the first embeddings are never reached
_OFFSET_POSITIONS = {
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip
_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout_prob",
    "classifier_dropout",
    "hidden_dropout",
    "attention_dropout",
)
_LOADING_ERRORS = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, SafetensorError)

T = TypeVar("T")


@dataclass(frozen=True)
class Encoder:
    """A pre-trained (or fine-tuned) model by name, and how to load it.

    >>> encoder = Encoder("checkpoints/latest")
    >>> classifier = encoder.with_head(AutoModelForSequenceClassification, ["not_entailment", "entailment"])
    """

    name: str
    dropout: float | None = None
    attention: str | None = None
    trust_remote_code: bool = False

    def config(self) -> PretrainedConfig:
        """The model's configuration; `BadInput` if the name is no model's."""
        register_lean_albert()
        path = Path(self.name)
        if path.exists() and not (path / "config.json").is_file():
            raise BadInput(f"--model {self.name}: no config.json there; give a checkpoint's directory")
        return self._load(lambda: AutoConfig.from_pretrained(self.name, **self._trust))

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The fast tokenizer beside the model: offsets come from it, so a slow one will not do."""
        path = Path(self.name)
        if path.is_dir() and not any((path / file).is_file() for file in _TOKENIZER_FILES):
            raise BadInput(
                f"--model {self.name}: no tokenizer there; copy the tokenizer's files beside the weights"
            )
        tokenizer = self._load(lambda: AutoTokenizer.from_pretrained(self.name, **self._trust))
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise BadInput(f"--model {self.name}: its tokenizer has no fast version (tokenizer.json)")
        if tokenizer.pad_token_id is None:
            raise BadInput(f"--model {self.name}: its tokenizer has no padding token; an encoder is needed")
        return tokenizer

    def with_head(self, auto_class: Any, labels: Sequence[str] | None = None) -> nn.Module:
        """The model under the head of `auto_class`; what the checkpoint lacks of it is drawn anew."""
        config = self.config()
        if labels is not None:
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: number for number, label in enumerate(labels)}
            config.problem_type = "single_label_classification"
        if self.dropout is not None:
            _set_dropout(config, self.dropout)
        if type(config) not in auto_class._model_mapping and not self.trust_remote_code:
            kind = auto_class.__name__.removeprefix("AutoModelFor")
            raise BadInput(
                f"--model {self.name}: transformers has no {kind} head for {config.model_type!r} models"
            )
        options = {"attn_implementation": self.attention} if self.attention else {}
        loaded = self._load(
            lambda: auto_class.from_pretrained(
                self.name, config=config, ignore_mismatched_sizes=True, **options, **self._trust
            )
        )
        # the loss is a mean over the batch; the Trainer would otherwise hand the model a count of items
        loaded.accepts_loss_kwargs = False
        return loaded

    def bare(self) -> nn.Module:
        """The encoder alone."""
        return self.with_head(AutoModel)

    @property
    def _trust(self) -> dict[str, bool]:
        return {"trust_remote_code": self.trust_remote_code}

    def _load(self, load: Callable[[], T]) -> T:
        try:
            return load()
        except _LOADING_ERRORS as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadInput(f"--model {self.name} cannot be loaded: {reason}") from None


def register_lean_albert() -> None:
    """Teach the Auto classes LeanALBERT; harmless when repeated."""
    config = lean_albert.LeanAlbertConfig
    AutoConfig.register(config.model_type, config, exist_ok=True)
    for auto, own in (
        (AutoModel, lean_albert.LeanAlbertModel),
        (transformers.AutoModelForSequenceClassification, lean_albert.LeanAlbertForSequenceClassification),
        (transformers.AutoModelForTokenClassification, lean_albert.LeanAlbertForTokenClassification),
        (transformers.AutoModelForQuestionAnswering, lean_albert.LeanAlbertForQuestionAnswering),
        (transformers.AutoModelForMultipleChoice, lean_albert.LeanAlbertForMultipleChoice),
    ):
        auto.register(config, own, exist_ok=True)


def longest_input(config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> int:
    """How many tokens the model takes: by its positions, and by what its tokenizer was saved with."""
    positions = getattr(config, "max_position_embeddings", None) or 512
    if config.model_type in _OFFSET_POSITIONS:
        positions -= (config.pad_token_id or 0) + 1
    return min(positions, tokenizer.model_max_length)


def check_vocabulary(name: str, encoder: nn.Module, tokenizer: PreTrainedTokenizerFast) -> None:
    """`BadInput` if the tokenizer has ids for which the model has no embedding."""
    embeddings = encoder.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    if len(tokenizer) > embeddings:
        raise BadInput(
            f"--model {name}: the tokenizer has {len(tokenizer)} pieces, the model {embeddings}: "
            "they do not belong together"
        )


def _set_dropout(config: PretrainedConfig, dropout: float) -> None:
    for name in _DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, dropout)
