"""Small made-up files in the official layouts, irregularities included."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

SUBJECTS = ("Кошка", "Собака", "Птица", "Рыба", "Лошадь", "Корова", "Мышь", "Лиса", "Утка", "Коза")
VERBS = ("видит", "любит", "ищет", "слышит")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def sentence(number: int) -> str:
    subject, other = SUBJECTS[number % 10], SUBJECTS[(number + 3) % 10].lower()
    return f"{subject} {VERBS[number % 4]} и слышит: {other} идёт домой."


def entailment(number: int) -> dict[str, Any]:
    right = number % 2 == 0
    hypothesis = sentence(number) if right else sentence(number + 5)
    return {
        "premise": sentence(number),
        "hypothesis": hypothesis,
        "label": "entailment" if right else "not_entailment",
        "idx": number,
    }


def rcb(number: int) -> dict[str, Any]:
    label = ("entailment", "contradiction", "neutral")[number % 3]
    optional = {} if number % 2 else {"verb": "знать", "negation": "no_negation", "genre": "kp"}
    return {
        "premise": sentence(number),
        "hypothesis": sentence(number + 1),
        "label": label,
        "idx": number,
    } | optional


def danetqa(number: int) -> dict[str, Any]:
    # a line separator inside a text must not end the row
    passage = f"{sentence(number)}\u2028{sentence(number + 1)} " * 3
    return {
        "question": f"{SUBJECTS[number % 10]} слышит?",
        "passage": passage,
        "label": number % 3 > 0,
        "idx": number,
    }


def parus(number: int) -> dict[str, Any]:
    return {
        "premise": sentence(number),
        "choice1": "Идёт дождь.",
        "choice2": "Светит солнце.",
        "question": ("cause", "effect")[number % 2],
        "label": number % 2,
        "idx": number,
    }


def muserc(number: int) -> dict[str, Any]:
    def answer(place: int) -> dict[str, Any]:
        return {"idx": 100 * number + place, "text": SUBJECTS[place], "label": (place + number) % 2}

    questions = [
        {
            "idx": 10 * number + q,
            "question": "Кто идёт домой?",
            "answers": [answer(3 * q + a) for a in range(3)],
        }
        for q in range(2)
    ]
    text = f"(1) {sentence(number)} (2) {sentence(number + 1)}(3) {sentence(number + 2)}"
    return {"idx": number, "passage": {"text": text, "questions": questions}}


def russe(number: int) -> dict[str, Any]:
    """Items 1 to 4 have one defect each: beyond the end, spaces inside, cut short, another word."""
    first, second = "На столе лежал старый ключ", "Из-под камня бил холодный ключ"
    start1, start2 = first.index("ключ"), second.index("ключ")
    spans = {
        1: (start1, start1 + 9, start2, start2 + 4),
        2: (start1 - 1, start1 + 4, start2 - 1, start2 + 4),
        3: (start1, start1 + 2, start2 + 1, start2 + 4),
        4: (0, 2, start2, start2 + 4),
    }.get(number, (start1, start1 + 4, start2, start2 + 4))
    names = ("start1", "end1", "start2", "end2")
    row = {"word": "ключ", "sentence1": first, "sentence2": second, "idx": number, "label": number % 2 == 0}
    return (
        row
        | dict(zip(names, spans, strict=True))
        | ({"gold_sense1": 1, "gold_sense2": 2} if number % 2 else {})
    )


def rwsd(number: int) -> dict[str, Any]:
    target = {"span1_text": "Мэри", "span2_text": "ей", "span1_index": 2, "span2_index": 6}
    text = 'Вчера вечером "Мэри" поблагодарила Анну: помощь ей пригодилась.'
    if number == 1:  # the index is of another word
        target["span1_index"] = 4
    return {"text": text, "target": target, "label": number % 3 == 0, "idx": number}


def rucos(number: int) -> dict[str, Any]:
    text = (
        "Президент Франк-Вальтер Штайнмайер прибыл в Сирию.\n@highlight\nСША и Россия ждут.\n@highlight\n"
        "Штайнмайер молчит ."
    )
    place = text.index("США")
    name = text.index("Франк-Вальтер")
    entities = [
        {"start": name, "end": name + len("Франк-Вальтер Штайнмайер")},
        {"start": text.index("Сирию"), "end": text.index("Сирию") + 4},  # cut short
        {"start": place, "end": place + 4},  # a space inside
        {"start": place, "end": place + 3},  # overlaps the one before
        {"start": text.index("Россия"), "end": text.index("Россия") + 6},
        {"start": text.rindex("Штайнмайер"), "end": len(text) + 7},  # beyond the end, a full stop inside
    ]
    inside = text.index("Штайнмайер")
    answers = [
        {"start": start, "end": start + len("Штайнмайер"), "text": "Штайнмайер"}
        for start in (inside, text.rindex("Штайнмайер"))
    ]
    query = {"query": "В Дамаск прибыл @placeholder .", "idx": number + 1000, "answers": answers}
    return {"idx": number, "passage": {"text": text, "entities": entities}, "qas": [query]}


def rucola(number: int) -> dict[str, Any]:
    acceptable = number % 3 != 0
    kind = "0" if acceptable else ("Syntax", "Semantics", "Morphology", "Hallucination")[number % 4]
    # quotation marks and a line break inside a field, as in the published files
    text = f'{sentence(number)} "да"' + ("\nи нет" if number == 2 else "")
    return {
        "id": number,
        "sentence": text,
        "acceptable": int(acceptable),
        "error_type": kind,
        "detailed_source": "made up",
    }


def lidirus(number: int) -> dict[str, Any]:
    row = entailment(number)
    optional = {"logic": "Negation", "knowledge": ""} if number % 2 else {"lexical-semantics": "Quantifiers"}
    return {
        "sentence1": row["premise"],
        "sentence2": row["hypothesis"],
        "label": row["label"],
        "idx": number,
    } | optional


MAKERS = {
    "RCB": rcb,
    "PARus": parus,
    "MuSeRC": muserc,
    "TERRa": entailment,
    "RUSSE": russe,
    "RWSD": rwsd,
    "DaNetQA": danetqa,
    "RuCoS": rucos,
}


def hide(task: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row of a test file: as the others, without its labels."""
    if task == "MuSeRC":
        questions = [
            question | {"answers": [without(answer, "label") for answer in question["answers"]]}
            for question in row["passage"]["questions"]
        ]
        return row | {"passage": row["passage"] | {"questions": questions}}
    if task == "RuCoS":
        return row | {"qas": [without(question, "answers") for question in row["qas"]]}
    return without(row, "label")


def write_superglue(root: Path, train: int = 8, others: int = 6) -> Path:
    """The unpacked archive with all nine tasks."""
    for task, make in MAKERS.items():
        write_jsonl(root / task / "train.jsonl", [make(number) for number in range(train)])
        write_jsonl(root / task / "val.jsonl", [make(number) for number in range(others)])
        write_jsonl(root / task / "test.jsonl", [hide(task, make(number)) for number in range(others)])
    write_jsonl(root / "LiDiRus" / "LiDiRus.jsonl", [lidirus(number) for number in range(others)])
    return root


def write_rucola(root: Path) -> Path:
    write_csv(root / "in_domain_train.csv", [rucola(number) for number in range(12)])
    write_csv(root / "in_domain_dev.csv", [rucola(number) for number in range(8)])
    write_csv(root / "out_of_domain_dev.csv", [rucola(number) for number in range(6)])
    test = [without(rucola(number), "acceptable", "error_type", "detailed_source") for number in range(7)]
    write_csv(root / "test.csv", test)
    return root
