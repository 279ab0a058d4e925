"""Reading the official layouts: irregular files are read, foreign and damaged ones refused by name."""

from __future__ import annotations

import json

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from finetune.data_source import open_source
from finetune.errors import BadInput
from finetune.splits import hold_out, read_splits
from finetune.task import TEST, TRAIN, VALIDATION
from finetune.tasks import find_task
from tests.finetune.layouts import (
    MAKERS,
    entailment,
    rucos,
    rwsd,
    sentence,
    without,
    write_jsonl,
    write_superglue,
)


def read(task: str, folder):
    kind = find_task(task)()
    return kind, read_splits(kind, open_source(str(folder), kind.layout)).by_name


@pytest.mark.parametrize("task", MAKERS)
def test_folder_of_the_archive_and_folder_of_the_task_are_the_same(superglue, task):
    _, above = read(task, superglue)
    _, inside = read(task, superglue / task)
    assert above == inside
    assert set(above) == {TRAIN, VALIDATION, TEST}


def test_the_folders_case_does_not_matter(tmp_path):
    write_superglue(tmp_path / "a")
    (tmp_path / "a" / "TERRa").rename(tmp_path / "a" / "terra")
    assert len(read("terra", tmp_path / "a")[1][TRAIN]) == 8


def test_files_with_other_names_are_never_read(tmp_path):
    write_superglue(tmp_path)
    (tmp_path / "PARus" / "test.jsonl").rename(tmp_path / "PARus" / "test_human_votes.jsonl")
    assert set(read("PARus", tmp_path)[1]) == {TRAIN, VALIDATION}


def test_labels_become_numbers_in_the_order_of_the_words(superglue):
    task, splits = read("RCB", superglue)
    assert [example.label for example in splits[TRAIN]][:3] == [0, 1, 2]
    assert list(task.labels) == ["entailment", "contradiction", "neutral"]
    assert all(example.label is None for example in splits[TEST])


@pytest.mark.parametrize(("value", "expected"), [(True, 1), ("true", 1), ("False", 0), (0, 0), ("1", 1)])
def test_yes_and_no_are_read_in_every_spelling(tmp_path, value, expected):
    rows = [{"question": "Да?", "passage": "Да.", "label": value, "idx": 0}] * 2
    for name in ("train", "val"):
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    assert read("DaNetQA", tmp_path)[1][TRAIN][0].label == expected


def test_a_number_is_no_label_of_an_entailment_task(tmp_path):
    write_superglue(tmp_path)
    write_jsonl(tmp_path / "TERRa" / "train.jsonl", [entailment(0), entailment(1) | {"label": 1}])
    with pytest.raises(BadInput, match=r"train\.jsonl, line 2: label 1 is not one of entailment, not_entail"):
        read("TERRa", tmp_path)


def test_line_separators_inside_texts_do_not_end_rows(superglue):
    _, splits = read("DaNetQA", superglue)
    assert len(splits[TRAIN]) == 8
    assert "\u2028" in splits[TRAIN][0].second


def test_a_byte_order_mark_and_empty_lines_are_passed_over(tmp_path):
    write_superglue(tmp_path)
    path = tmp_path / "RWSD" / "val.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n\n")
    assert len(read("RWSD", tmp_path)[1][VALIDATION]) == 6


def test_sentence_numbers_of_muserc_are_no_text(superglue):
    _, splits = read("MuSeRC", superglue)
    assert len(splits[VALIDATION]) == 6 * 2 * 3
    first = splits[VALIDATION][0]
    assert first.first == f"{sentence(0)} {sentence(1)} {sentence(2)}"
    assert first.second == "Кто идёт домой? Кошка"
    assert vars(first.idx) == {"passage": 0, "question": 0, "answer": 0}


def test_parus_puts_the_cause_first(superglue):
    _, splits = read("PARus", superglue)
    cause, effect = splits[TRAIN][:2]
    assert [pair[1] for pair in cause.pairs] == [sentence(0)] * 2
    assert [pair[0] for pair in effect.pairs] == [sentence(1)] * 2


def test_all_spans_of_russe_lie_on_the_word_and_repairs_are_counted(superglue):
    task, splits = read("RUSSE", superglue)
    words = {word for split in splits.values() for example in split for word in example.words()}
    assert words == {"ключ"}
    # four defects a split, in three splits; item 2 has spaces in both sentences, item 3 is cut in both
    assert task.notes == {
        "spans repaired: beyond the text": 3,
        "spans repaired: spaces inside": 6,
        "spans repaired: cut short": 6,
        "spans repaired: on another word": 3,
    }


def test_rwsd_finds_its_phrases_behind_quotation_marks_and_wrong_numbers(superglue):
    task, splits = read("RWSD", superglue)
    assert {example.words() for example in splits[TRAIN]} == {("Мэри", "ей")}
    assert task.notes == {"spans repaired: on another word": 3}


def test_rwsd_without_word_numbers_takes_the_first_occurrence(tmp_path):
    row = rwsd(0)
    row["target"] = without(row["target"], "span1_index", "span2_index")
    for name in ("train", "val"):
        write_jsonl(tmp_path / f"{name}.jsonl", [row, rwsd(0)])
    task, splits = read("RWSD", tmp_path)
    assert splits[TRAIN][0] == splits[TRAIN][1]
    assert not task.notes


def test_rucos_keeps_overlapping_mentions_and_knows_answers_inside_longer_entities(superglue):
    task, splits = read("RuCoS", superglue)
    example = splits[TRAIN][0]
    assert example.candidates == ("Франк-Вальтер Штайнмайер", "Сирию", "США", "Россия", "Штайнмайер молчит")
    assert {example.candidates[number] for number in example.right} == {
        "Франк-Вальтер Штайнмайер",
        "Штайнмайер молчит",
    }
    assert len(example.mentions) == 5  # «США» with and without its space is one mention
    assert "@highlight" not in example.passage
    assert example.answers == ("Штайнмайер", "Штайнмайер")
    assert task.notes["spans repaired: cut short"] == 8 + 6 + 6
    assert splits[TEST][0].right is None


def test_rucos_rows_are_numbered_by_the_row(superglue):
    task, splits = read("RuCoS", superglue)
    assert task.record(splits[TEST][2], "США") == {"idx": 2, "label": "США"}


def test_rucos_without_a_placeholder_is_refused(tmp_path):
    row = rucos(0)
    row["qas"][0]["query"] = "Кто прибыл?"
    write_jsonl(tmp_path / "train.jsonl", [row])
    with pytest.raises(BadInput, match=r"train\.jsonl, line 1, qas\[0\]: the query has no @placeholder"):
        read("RuCoS", tmp_path)


def test_rucola_fields_may_hold_quotes_and_line_breaks(rucola_files):
    _, splits = read("RuCoLA", rucola_files)
    assert len(splits[TRAIN]) == 12
    assert splits[TRAIN][2].first.endswith('"да"\nи нет')
    assert len(splits["out_of_domain"]) == 6
    assert len(splits[TEST]) == 7


def test_lidirus_reads_categories_where_they_are(superglue):
    _, splits = read("LiDiRus", superglue)
    assert [example.group for example in splits[TEST]][:2] == ["lexical-semantics", "logic"]


def damaged(tmp_path, content: str, name: str = "train.jsonl"):
    write_superglue(tmp_path)
    (tmp_path / "TERRa" / name).write_text(content, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(entailment(0)) + '\n{"premise": "Кош', "train.jsonl, line 2: not a whole JSON object"),
        (json.dumps(without(entailment(0), "hypothesis")), "line 1: field 'hypothesis' is missing"),
        (json.dumps(entailment(0) | {"idx": "a"}), "line 1: field 'idx' is 'a', not a whole number"),
        (json.dumps(entailment(0) | {"premise": {}}), "line 1: field 'premise' is not text"),
        (json.dumps([1, 2]), "line 1: a JSON object is expected, not list"),
        (json.dumps(without(entailment(0), "label")), "1 of 1 examples of the train split have no label"),
        ("", "train.jsonl has no rows"),
    ],
)
def test_damaged_and_foreign_files_are_refused_by_name(tmp_path, content, message):
    with pytest.raises(BadInput) as caught:
        read("TERRa", damaged(tmp_path, content))
    assert str(caught.value).startswith("TERRa: ")
    assert message in str(caught.value)


def test_a_file_of_another_encoding_is_refused(tmp_path):
    write_superglue(tmp_path)
    (tmp_path / "TERRa" / "val.jsonl").write_bytes(
        json.dumps(entailment(0), ensure_ascii=False).encode("cp1251")
    )
    with pytest.raises(BadInput, match=r"val\.jsonl is not UTF-8 text"):
        read("TERRa", tmp_path)


def test_a_missing_file_is_named_with_the_places_it_could_be(tmp_path):
    with pytest.raises(BadInput, match=r"TERRa: train\.jsonl is neither in .* nor in .*TERRa"):
        read("TERRa", tmp_path)


def test_a_csv_with_a_torn_row_is_refused(tmp_path, rucola_files):
    for file in rucola_files.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / "test.csv").open("a", encoding="utf-8") as file:
        file.write("99\n")
    with pytest.raises(BadInput, match=r"test\.csv, line \d+: not 2 columns"):
        read("RuCoLA", tmp_path)


def test_a_place_that_is_not_there_is_refused(tmp_path):
    layout = find_task("TERRa").layout
    with pytest.raises(BadInput, match="does not exist"):
        open_source(str(tmp_path / "nowhere"), layout)
    file = write_jsonl(tmp_path / "train.jsonl", [entailment(0)])
    with pytest.raises(BadInput, match="is a file"):
        open_source(str(file), layout)


def test_a_data_set_of_the_hub_gives_the_same_examples(monkeypatch, superglue):
    _, local = read("TERRa", superglue)
    features = Features(
        {
            "premise": Value("string"),
            "hypothesis": Value("string"),
            "label": ClassLabel(names=["entailment", "not_entailment"]),
            "idx": Value("int64"),
        }
    )

    def hub_rows(count, hidden):
        rows = [entailment(number) for number in range(count)]
        names = features["label"].names
        return [row | {"label": -1 if hidden else names.index(row["label"])} for row in rows]

    data = DatasetDict(
        {
            split: Dataset.from_list(hub_rows(count, split == "test"), features=features)
            for split, count in (("train", 8), ("validation", 6), ("test", 6))
        }
    )
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *words: asked.append(words) or data)
    assert read("TERRa", "some/superglue")[1] == local
    assert asked == [("some/superglue", "terra")]


def test_rows_of_the_hubs_muserc_and_rucos_are_understood():
    from finetune.rows import Row

    idx = {"paragraph": 1, "question": 2, "answer": 3}
    row = Row({"paragraph": "(1) Да.", "question": "Что?", "answer": "Да", "label": "1", "idx": idx}, "hub")
    (example,) = find_task("MuSeRC")().examples(row)
    assert (example.first, example.second, example.label) == ("Да.", "Что? Да", 1)
    row = Row(
        {
            "passage": "США и Россия. США ждут.",
            "query": "@placeholder ждут",
            "entities": ["США", "Россия"],
            "answers": ["США"],
            "idx": {"passage": 0, "query": 7},
        },
        "hub",
    )
    (example,) = find_task("RuCoS")().examples(row)
    assert len(example.mentions) == 3
    assert example.right == {example.candidates.index("США")}


def test_an_unreachable_data_set_is_one_line(monkeypatch):
    def unreachable(*_words):
        raise ConnectionError("no way there\nat all")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(BadInput, match=r"some/data is neither a directory here nor .*: no way there$"):
        open_source("some/data", find_task("TERRa").layout)


def test_what_is_held_out_is_the_same_every_time_and_not_trained_on():
    train, held = hold_out(list(range(50)))
    assert (train, held) == hold_out(list(range(50)))
    assert len(held) == 5
    assert sorted(train + held) == list(range(50))
    with pytest.raises(BadInput, match="too few"):
        hold_out([1])


def test_an_unknown_task_is_answered_with_the_known_ones():
    with pytest.raises(BadInput, match="no task 'terra2'; there are LiDiRus, RCB"):
        find_task("terra2")
