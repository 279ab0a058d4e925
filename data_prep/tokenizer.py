"""The run's tokenizer: SentencePiece Unigram pieces in which ``▁`` opens every word.

Training is SentencePiece's: the trainer of ``tokenizers`` gives other scores in every process, and a run's
content hash depends on them. The result is an ordinary ``tokenizer.json`` that needs neither SentencePiece
nor this project. Every text can be encoded: the Russian alphabet is always in the vocabulary, characters
that are not fall back to bytes. Ids 0 to 4 are ``<pad> <unk> [CLS] [SEP] [MASK]``; the vocabulary is filled
up to a multiple of 64 with pieces that never occur, because matrix kernels like such widths.
"""

from __future__ import annotations

import io
import json
import re
import string
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data_prep.errors import TokenizerError

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
WORD_START = "▁"
VOCAB_MULTIPLE = 64
BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
UNUSED_PIECE = re.compile(r"<unused\d+>")

_LETTERS = "".join(chr(c) for c in range(ord("а"), ord("я") + 1)) + "ё" + string.ascii_lowercase
# ASCII marks are needed too: text such as "<pad>" must have a better reading than the special token
_ALPHABET = _LETTERS + _LETTERS.upper() + string.digits + string.punctuation + "«»—…№"
_NEVER_CHOSEN = -1000.0  # score of pieces that text must not be segmented into
_TRAINER_THREADS = 2  # fixed, not the machine's: partial sums, and so the scores, depend on it
_RARE_WORDS_MATTER_BELOW = 50_000


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train on ``texts``; the same texts give the same tokenizer on every machine.

    Fewer than ``vocab_size`` pieces come out when the texts do not support more. Raises ``TokenizerError``
    when there is no text or ``vocab_size`` cannot even hold the alphabet.
    """
    text_side = _text_side()
    counts: Counter[str] = Counter()
    chunks: Counter[str] = Counter()
    for text in texts:
        chunks.update(text.split())
    for chunk, count in chunks.items():  # no piece spans a space: each distinct chunk is split once
        normal = text_side.normalizer.normalize_str(chunk)
        for word, _ in text_side.pre_tokenizer.pre_tokenize_str(normal):
            counts[word] += count
    if not counts:
        raise TokenizerError("no text to train a tokenizer on: check the input files")
    pieces = _pad_vocabulary(_train_unigram(counts, _round_up(vocab_size)))
    return _wrap(pieces)


def load_tokenizer(directory: str | Path) -> PreTrainedTokenizerFast:
    """Read a saved tokenizer; ``TokenizerError`` names the directory when it cannot be used."""
    if not (Path(directory) / "tokenizer.json").is_file():
        raise TokenizerError(
            f"no tokenizer.json in {directory}: give the directory data-prep tokenizer wrote"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory))
    except (OSError, ValueError, KeyError) as error:
        raise TokenizerError(f"the tokenizer in {directory} cannot be read: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise TokenizerError(f"the tokenizer in {directory} is not a fast one: it needs a tokenizer.json")
    check_special_tokens(tokenizer, str(directory))
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, directory: str | Path) -> None:
    """Write a directory that ``AutoTokenizer`` of transformers 4 and 5 loads without this project."""
    tokenizer.save_pretrained(str(directory))
    path = Path(directory) / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # version 5's own name for it is unknown to 4
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_special_tokens(tokenizer: PreTrainedTokenizerFast, where: str) -> None:
    """Raise ``TokenizerError`` unless padding, classifier, separator and mask tokens exist."""
    names = ("pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id")
    missing = [name for name in names if getattr(tokenizer, name) is None]
    if missing:
        raise TokenizerError(f"the tokenizer {where} lacks {', '.join(missing)}: a masked LM needs them")


def _text_side() -> Tokenizer:
    """Normalizer and word splitting, the same in training and use; punctuation never joins a word's piece."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(left=False, right=True),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # "first": text after [MASK] opens a word only if a space says so
            pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="first"),
            pre_tokenizers.Split(Regex(rf"{WORD_START}?\p{{P}}"), "isolated"),
        ]
    )
    return tokenizer


def _train_unigram(counts: Counter[str], vocab_size: int) -> list[tuple[str, float]]:
    # Sentencepiece is imported here: peers use tokenizers, and only training needs it.
    import sentencepiece

    least = 2 if len(counts) > _RARE_WORDS_MATTER_BELOW else 1
    words = sorted((-count, word) for word, count in counts.items() if count >= least and "\t" not in word)
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".tsv", newline="\n") as file:
        file.writelines(f"{word}\t{-count}\n" for count, word in words)
        file.flush()
        try:
            sentencepiece.SentencePieceTrainer.train(
                input=file.name,
                input_format="tsv",
                model_writer=model,
                model_type="unigram",
                vocab_size=vocab_size,
                hard_vocab_limit=False,
                byte_fallback=True,
                required_chars=_ALPHABET,
                # the defaults (1,000,000 and 0.75) took 48 s instead of 8 and gave 1.5 % more tokens a word
                seed_sentencepiece_size=max(10 * vocab_size, 40_000),
                shrinking_factor=0.6,
                num_threads=_TRAINER_THREADS,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                pad_id=0,
                pad_piece=PAD,
                unk_id=1,
                unk_piece=UNK,
                bos_id=-1,
                eos_id=-1,
                control_symbols=[CLS, SEP, MASK],
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            raise TokenizerError(
                f"vocab_size {vocab_size} does not suit this text: {_last_line(error)}"
            ) from error
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [(trained.id_to_piece(i), trained.get_score(i)) for i in range(trained.get_piece_size())]


def _pad_vocabulary(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Special and byte pieces must not match text that spells them; unused pieces fill up to the multiple."""
    fixed = [
        (piece, _NEVER_CHOSEN if piece in SPECIAL_TOKENS or BYTE_PIECE.fullmatch(piece) else score)
        for piece, score in pieces
    ]
    missing = _round_up(len(fixed)) - len(fixed)
    return fixed + [(f"<unused{i}>", _NEVER_CHOSEN) for i in range(missing)]


def _wrap(pieces: list[tuple[str, float]]) -> PreTrainedTokenizerFast:
    tokenizer = _text_side()
    tokenizer.model = models.Unigram(pieces, unk_id=1, byte_fallback=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement=WORD_START, prepend_scheme="first")]
    )
    special = [AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS[:-1]]
    # the space before [MASK] belongs to the word that is masked
    mask = AddedToken(MASK, special=True, normalized=False, lstrip=True)
    tokenizer.add_special_tokens([*special, mask])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, SPECIAL_TOKENS.index(CLS)), (SEP, SPECIAL_TOKENS.index(SEP))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=mask,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _round_up(size: int) -> int:
    return -(-size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
