"""`finetune predict`: a fine-tuned classifier over a file of texts, at its operating point if it has one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune.encoder import Encoder
from finetune.explain import read_texts
from finetune.fine_tuned import read_classifier
from finetune.heads.sequence import TextExample
from finetune.operating_point import probabilities_of_class
from finetune.run_directory import write_text
from finetune.settings import TrainingSettings
from finetune.tasks.classification import Classification
from finetune.trained_model import load_model


def predict_file(
    directory: Path, file: Path, output: Path, *, text_field: str = "text", second_field: str | None = None
) -> dict[str, Any]:
    """Write a JSON line a text: `label`, `probabilities`, and `positive` (at or above the saved threshold)."""
    marker = read_classifier(directory)
    task = Classification.of_labels(marker.labels)
    texts = read_texts(file, text_field, second_field)
    examples = [TextExample(number, pair.first, pair.second, None) for number, pair in enumerate(texts)]
    settings = TrainingSettings.model_validate({"max_length": marker.max_length})
    decided = load_model(task, Encoder(str(directory)), settings, seed=0).decide(examples, output.parent)
    columns = [probabilities_of_class(decided.scores, number) for number in range(len(marker.labels))]
    point = marker.findings.get("operating_point") or {}
    lines = []
    for number, prediction in enumerate(decided.predictions):
        probabilities = {label: column[number] for label, column in zip(marker.labels, columns, strict=True)}
        line = {"idx": number, "label": marker.labels[prediction], "probabilities": probabilities}
        if point.get("threshold") is not None:
            line["positive"] = probabilities[point["positive_label"]] >= point["threshold"]
        lines.append(line)
    write_text(output, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    found = sum(bool(line.get("positive")) for line in lines) if point.get("threshold") is not None else None
    return {"texts": len(lines), "output": str(output), "positive": found}
