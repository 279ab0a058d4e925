"""What masking and the model need of a tokenizer, read from its folder without transformers.

A peer never tokenizes: the run's text is token ids already. Importing transformers and making a tokenizer of it would
take longer than all else that a peer does to begin.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer

from data_prep.errors import TokenizerError

WORD_START = "▁"
BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
UNUSED_PIECE = re.compile(r"<unused\d+>")

# a class of its own may have special tokens that its configuration does not name
PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FURTHER_TOKENS = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")


class Vocabulary(Protocol):
    """Pieces and special tokens; `PreTrainedTokenizerFast` is one as well."""

    @property
    def pad_token_id(self) -> Any: ...

    @property
    def cls_token_id(self) -> Any: ...

    @property
    def sep_token_id(self) -> Any: ...

    @property
    def mask_token_id(self) -> Any: ...

    @property
    def all_special_ids(self) -> list[int]: ...

    def get_vocab(self) -> dict[str, int]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class SavedVocabulary:
    """A `Vocabulary` and nothing else."""

    pieces: dict[str, int]
    special: dict[str, int]

    @property
    def pad_token_id(self) -> int | None:
        return self.special.get("pad_token")

    @property
    def cls_token_id(self) -> int | None:
        return self.special.get("cls_token")

    @property
    def sep_token_id(self) -> int | None:
        return self.special.get("sep_token")

    @property
    def mask_token_id(self) -> int | None:
        return self.special.get("mask_token")

    @property
    def all_special_ids(self) -> list[int]:
        return sorted(set(self.special.values()))

    def get_vocab(self) -> dict[str, int]:
        return self.pieces

    def __len__(self) -> int:
        return len(self.pieces)


def read_vocabulary(directory: str | Path) -> Vocabulary:
    """That of a saved tokenizer; ``TokenizerError`` names the directory when it cannot be used."""
    try:
        found = _read_plainly(Path(directory))
    except Exception as error:  # tokenizers has no narrower one for a file it cannot parse
        raise TokenizerError(f"the tokenizer in {directory} cannot be read: {error}") from error
    if found is None:
        # imports transformers, which alone knows what every kind of tokenizer has by itself
        from data_prep.tokenizer import load_tokenizer

        return load_tokenizer(directory)
    check_special_tokens(found, str(directory))
    return found


def check_special_tokens(tokenizer: Vocabulary, where: str) -> None:
    """Raise ``TokenizerError`` unless padding, classifier, separator and mask tokens exist."""
    names = ("pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id")
    missing = [name for name in names if getattr(tokenizer, name) is None]
    if missing:
        raise TokenizerError(f"the tokenizer {where} lacks {', '.join(missing)}: a masked LM needs them")


def _read_plainly(directory: Path) -> SavedVocabulary | None:
    """None if the files do not say everything."""
    path, config_path = directory / "tokenizer.json", directory / "tokenizer_config.json"
    if not path.is_file() or not config_path.is_file():
        return None
    config = json.loads(config_path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") not in PLAIN_CLASSES or any(map(config.get, FURTHER_TOKENS)):
        return None
    pieces = Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    special = {name: _content(config[name]) for name in SPECIAL_NAMES if config.get(name) is not None}
    added = [_content(token) for token in config.get("added_tokens_decoder", {}).values()]
    if not all(token in pieces for token in (*special.values(), *added)):
        return None
    return SavedVocabulary(pieces, {name: pieces[token] for name, token in special.items()})


def _content(token: Any) -> str:
    """Of a token that is written as itself, or with how it is matched."""
    return token["content"] if isinstance(token, dict) else token
