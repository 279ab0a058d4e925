"""RuCoLA: is a sentence acceptable Russian?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.data_source import DataLayout
from finetune.heads.sequence import SequenceHead, TextExample
from finetune.labels import LABEL_WORDS
from finetune.metrics import accuracy, matthews_correlation
from finetune.rows import Row
from finetune.task import TEST, TRAIN, VALIDATION, Decided, LabelledTask, Scores, gold_labels

OUT_OF_DOMAIN, OVERALL = "out_of_domain", "overall"
ERROR_TYPES = ("Morphology", "Syntax", "Semantics", "Hallucination")


class RuCoLA(LabelledTask[TextExample]):
    """Accuracy and Matthews correlation, in the domain, out of it, and by type of error.

    Sentences of one error type are all unacceptable, so its correlation is taken over them together with
    all acceptable sentences, its accuracy (the share found) over them alone.
    """

    layout = DataLayout(
        "RuCoLA",
        {
            TRAIN: ("in_domain_train.csv",),
            VALIDATION: ("in_domain_dev.csv",),
            OUT_OF_DOMAIN: ("out_of_domain_dev.csv",),
            TEST: ("test.csv",),
        },
        optional=frozenset({TEST}),
        hub_lacks=frozenset({OUT_OF_DOMAIN}),
    )
    words = LABEL_WORDS["RuCoLA"]
    head = SequenceHead()
    metric = "mcc"
    metrics = ("mcc",)
    evaluated = (VALIDATION, OUT_OF_DOMAIN)
    reported = OVERALL

    def examples(self, row: Row) -> list[TextExample]:
        sentence, kind = row.text("sentence"), str(row.values.get("error_type") or "0")
        # the hub's copy has "label" for what the CSV files call "acceptable"
        name = "acceptable" if row.has("acceptable") else "label"
        return [TextExample(row.integer("id"), sentence, None, row.class_of(name, self.words), kind)]

    def measure(self, examples: Sequence[TextExample], predictions: Sequence[int]) -> Scores:
        gold = gold_labels(examples)
        return {"mcc": matthews_correlation(gold, predictions), "accuracy": accuracy(gold, predictions)}

    def measure_all(self, decided: Mapping[str, Decided[TextExample]]) -> dict[str, Scores]:
        scores = super().measure_all(decided)
        examples = [example for item in decided.values() for example in item.examples]
        predictions = [p for item in decided.values() for p in item.predictions]
        scores[OVERALL] = self.measure(examples, predictions)
        for kind in ERROR_TYPES:
            pairs = list(zip(examples, predictions, strict=True))
            of_kind = [pair for pair in pairs if pair[0].group == kind]
            acceptable = [pair for pair in pairs if pair[0].label == 1]
            if of_kind:
                together = self._measure_pairs([*of_kind, *acceptable])
                alone = self._measure_pairs(of_kind)
                scores[kind] = {"mcc": together["mcc"], "accuracy": alone["accuracy"]}
        return scores

    def _measure_pairs(self, pairs: Sequence[tuple[TextExample, int]]) -> Scores:
        return self.measure([example for example, _ in pairs], [prediction for _, prediction in pairs])

    def record(self, example: TextExample, prediction: int) -> dict[str, Any]:
        return {"id": example.idx, "acceptable": self.words.submission[prediction]}
