"""LiDiRus: the diagnostic of linguistic phenomena, answered by a model that was fine-tuned on TERRa."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune.data_source import DataLayout
from finetune.heads.sequence import SequenceHead, TextExample
from finetune.labels import LABEL_WORDS
from finetune.metrics import accuracy, matthews_correlation
from finetune.rows import Row
from finetune.task import TEST, Decided, LabelledTask, Scores, gold_labels

CATEGORIES = ("lexical-semantics", "predicate-argument-structure", "logic", "knowledge")


class LiDiRus(LabelledTask[TextExample]):
    """Entailment in two classes over one file, measured by Matthews correlation, also by category."""

    layout = DataLayout("LiDiRus", {TEST: ("LiDiRus.jsonl",)}, optional=frozenset(), hub_config="lidirus")
    words = LABEL_WORDS["LiDiRus"]
    head = SequenceHead()
    metric = "mcc"
    metrics = ("mcc",)
    evaluated = (TEST,)
    reported = TEST
    trained_as = "TERRa"

    def examples(self, row: Row) -> list[TextExample]:
        first, second = row.text("sentence1"), row.text("sentence2")
        group = " ".join(name for name in CATEGORIES if str(row.values.get(name) or "").strip())
        return [TextExample(row.integer("idx"), first, second, row.class_of("label", self.words), group)]

    def measure(self, examples: Sequence[TextExample], predictions: Sequence[int]) -> Scores:
        gold = gold_labels(examples)
        return {"mcc": matthews_correlation(gold, predictions), "accuracy": accuracy(gold, predictions)}

    def measure_all(self, decided: Mapping[str, Decided[TextExample]]) -> dict[str, Scores]:
        scores = super().measure_all(decided)
        for split, item in decided.items():
            for category in CATEGORIES:
                pairs = zip(item.examples, item.predictions, strict=True)
                chosen = [pair for pair in pairs if category in pair[0].group.split()]
                if chosen:
                    gold = gold_labels([example for example, _ in chosen])
                    scores[split][f"mcc {category}"] = matthews_correlation(gold, [p for _, p in chosen])
        return scores
