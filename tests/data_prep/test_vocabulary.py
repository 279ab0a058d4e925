"""What is read of a tokenizer without transformers is what transformers would say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from data_prep.errors import TokenizerError
from data_prep.masking import WholeWordMasker
from data_prep.tokenizer import load_tokenizer, save_tokenizer
from data_prep.vocabulary import SavedVocabulary, Vocabulary, read_vocabulary

IDS = ("pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id")


@pytest.fixture
def folder(tokenizer, tmp_path: Path) -> Path:
    save_tokenizer(tokenizer, tmp_path)
    return tmp_path


def assert_same(ours: Vocabulary, theirs: PreTrainedTokenizerFast) -> None:
    assert ours.get_vocab() == theirs.get_vocab()
    assert len(ours) == len(theirs)
    assert sorted(ours.all_special_ids) == sorted(theirs.all_special_ids)
    assert [getattr(ours, name) for name in IDS] == [getattr(theirs, name) for name in IDS]


def change_config(folder: Path, **values: object) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_it_is_what_transformers_reads_and_masks_alike(folder) -> None:
    ours, theirs = read_vocabulary(folder), load_tokenizer(folder)
    assert isinstance(ours, SavedVocabulary)
    assert_same(ours, theirs)
    rows = np.random.default_rng(0).integers(0, len(ours), (4, 64))
    masked = [WholeWordMasker(one)(rows, np.random.default_rng(1)) for one in (ours, theirs)]
    assert all(np.array_equal(*arrays) for arrays in zip(*masked, strict=True))


def test_a_folder_as_transformers_4_writes_it(folder, tokenizer) -> None:
    added = {
        str(number): {"content": token, "special": True}
        for token, number in zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    }
    mask = {"content": "[MASK]", "lstrip": True, "__type": "AddedToken"}
    change_config(folder, added_tokens_decoder=added, extra_special_tokens={}, mask_token=mask)
    ours = read_vocabulary(folder)
    assert isinstance(ours, SavedVocabulary)
    assert_same(ours, tokenizer)


@pytest.mark.parametrize(
    "values",
    [
        {"extra_special_tokens": ["<unused0>"]},
        {"additional_special_tokens": ["<unused0>"]},
        {"bos_token": "<not in the vocabulary>"},
        {"tokenizer_class": "BertTokenizerFast"},
    ],
)
def test_what_the_files_do_not_say_is_left_to_transformers(folder, values) -> None:
    change_config(folder, **values)
    assert_same(read_vocabulary(folder), load_tokenizer(folder))


def test_a_class_with_tokens_of_its_own(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "мама", "##м"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    assert_same(read_vocabulary(tmp_path), load_tokenizer(tmp_path))


def test_it_does_not_import_transformers(folder) -> None:
    program = f"""
import sys
from data_prep.masking import WholeWordMasker
from data_prep.vocabulary import read_vocabulary
WholeWordMasker(read_vocabulary({str(folder)!r}))
assert "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_bad_input(tmp_path: Path, folder) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        read_vocabulary(tmp_path / "elsewhere")
    change_config(folder, mask_token=None)
    with pytest.raises(TokenizerError, match="lacks mask_token_id"):
        read_vocabulary(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match="cannot be read"):
        read_vocabulary(folder)
