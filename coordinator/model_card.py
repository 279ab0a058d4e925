"""The model card of a checkpoint: README.md with the run's facts, as model hubs show it.

Everything in it is known to the coordinator; nothing is praised. Paths of the operator's machine stay out of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.evaluation import Evaluation
from swarm.spec import RunSpec

LOSS_CURVE = "loss.svg"
BUILTIN = "builtin"
BUILTIN_LICENSE = "cc-by-sa-4.0"
NAMED_CONTRIBUTORS = 50


@dataclass(frozen=True)
class CardFacts:
    """What a card tells.

    :param evaluation: on the held-out set
    :param samples: put into global steps so far
    :param contributors: (name, samples) of those who gave them, most first
    :param peers: how many peers ever contributed
    :param train_curve: (global step, loss); `heldout_curve`: of the checkpoints before this one
    :param begun_with: name of the weights that the run began with, if it did not begin with random ones
    """

    spec: RunSpec
    step: int
    train_loss: float | None
    evaluation: Evaluation
    parameters: int
    samples: int = 0
    contributors: Sequence[tuple[str, int]] = ()
    peers: int = 0
    train_curve: Sequence[tuple[int, float]] = ()
    heldout_curve: Sequence[tuple[int, float]] = ()
    begun_with: str | None = None


def write_card(facts: CardFacts) -> str:
    """The card's Markdown, with the front matter of a model hub."""
    parts = (_front_matter(facts), _summary(facts), _figures(facts), _how_to_load(), _data(facts))
    contributors = _contributors(facts)
    return (
        "\n\n".join([*("\n".join(part) for part in parts), *contributors, "\n".join(_spec(facts.spec))])
        + "\n"
    )


def _front_matter(facts: CardFacts) -> Iterator[str]:
    yield "---"
    yield "language: ru"
    if license := _license(facts.spec):
        yield f"license: {license}"
    yield "library_name: transformers"
    yield "pipeline_tag: fill-mask"
    yield "tags: [artel, lean_albert, masked-lm, collaborative-training]"
    yield "---"


def _summary(facts: CardFacts) -> Iterator[str]:
    model = facts.spec.model
    yield f"# {facts.spec.name}, step {facts.step}"
    yield ""
    yield (
        f"A masked language model for Russian: LeanALBERT with {facts.parameters / 1e6:.1f} M parameters, "
        f"{model.num_hidden_layers} layers of {model.num_hidden_groups} shared, width {model.hidden_size}. "
        "Volunteers trained it together with Artel, on machines that came and went."
    )


def _figures(facts: CardFacts) -> Iterator[str]:
    score, training = facts.evaluation, facts.spec.training
    yield "| | |"
    yield "|---|---|"
    yield f"| run | `{facts.spec.run_id}` |"
    if facts.begun_with:
        yield f"| began with the weights in | {_plain(facts.begun_with)} |"
    yield f"| global step | {facts.step} of {training.total_steps} |"
    yield f"| samples | {facts.samples} |"
    yield f"| peers | {facts.peers} |"
    yield f"| training loss | {_number(facts.train_loss)} |"
    yield f"| held-out loss | {_number(score.loss)} ({score.tokens} masked tokens) |"
    yield (
        f"| held-out accuracy | {score.accuracy:.1%} |"
        if math.isfinite(score.accuracy)
        else "| held-out accuracy | - |"
    )
    if len(score.by_source) > 1:
        for source, own in score.by_source.items():
            yield f"| held-out, {_plain(source)} | loss {_number(own.loss)}, accuracy {own.accuracy:.1%} |"
    yield ""
    yield f"![loss over global steps]({LOSS_CURVE})"


def _how_to_load() -> Iterator[str]:
    yield "## How to use it"
    yield ""
    yield "```python"
    yield "from transformers import AutoModelForMaskedLM, AutoTokenizer"
    yield ""
    yield 'tokenizer = AutoTokenizer.from_pretrained("PATH_OR_NAME")'
    yield 'model = AutoModelForMaskedLM.from_pretrained("PATH_OR_NAME", trust_remote_code=True)'
    yield "```"


def _data(facts: CardFacts) -> Iterator[str]:
    data = facts.spec.data
    yield "## Data"
    yield ""
    if data.source == BUILTIN:
        yield "Example sentences and definitions of the Russian Wiktionary, from the package wiki-ru-wordnet 1.0.3."
    else:
        yield f"A corpus named {_plain(Path(data.source).name)} by those who ran the training."
    license = _license(facts.spec)
    yield f"Licence of the text: {license}." if license else "The licence of the text was not stated."


def _contributors(facts: CardFacts) -> list[str]:
    if not facts.contributors:
        return []
    shown = facts.contributors[:NAMED_CONTRIBUTORS]
    lines = ["## Contributors", "", "| name | samples |", "|---|---|"]
    lines += [f"| {_plain(name)} | {samples} |" for name, samples in shown]
    if facts.peers > len(shown):
        lines.append(f"| and {facts.peers - len(shown)} more | |")
    return ["\n".join(lines)]


def _spec(spec: RunSpec) -> Iterator[str]:
    yield "## Run spec"
    yield ""
    yield "```toml"
    values = spec.model_dump(mode="json")
    values["data"]["source"] = (
        spec.data.source if spec.data.source == BUILTIN else Path(spec.data.source).name
    )
    yield from (f"{key} = {_toml(value)}" for key, value in values.items() if not isinstance(value, dict))
    for section, entries in values.items():
        if isinstance(entries, dict):
            yield f"[{section}]"
            yield from (f"{key} = {_toml(value)}" for key, value in entries.items())
    yield "```"


def _license(spec: RunSpec) -> str:
    return _plain(spec.data.license) or (BUILTIN_LICENSE if spec.data.source == BUILTIN else "")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{_plain(value)}"' if isinstance(value, str) else repr(value)


def _plain(text: str) -> str:
    """A stranger's words on one line, without anything that Markdown or HTML would take for its own."""
    return "".join(character for character in " ".join(text.split()) if character not in '|`<>[]"\\*!#')


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"
