"""Pages that shade the words a model looked at."""

from __future__ import annotations

import subprocess
import sys

import pytest

from finetune.explain import Explainer, TextPair
from tests.finetune.conftest import QUICK
from tests.finetune.tiny_models import MAKERS


@pytest.fixture(scope="module")
def fine_tuned(models, superglue, tmp_path_factory):
    """A TERRa model of every architecture, as a run leaves it."""
    from finetune.commands import run_command

    root = tmp_path_factory.mktemp("fine-tuned")
    settings = [word for word in QUICK if word != "--set"]
    for name, model in models.items():
        run_command("TERRa", str(model), str(superglue), root / name, 1, settings)
    return {name: root / name / "seed-0" / "model" for name in models}


@pytest.mark.parametrize("architecture", MAKERS)
def test_every_word_has_two_shares_and_the_greatest_is_one(fine_tuned, architecture):
    first, second = "Кошка видит: «Собака» идёт.", "Собака идёт!"
    explained = Explainer(fine_tuned[architecture]).explain(TextPair(first, second))
    words = [(first, second)[word.text][word.start : word.end] for word in explained.words]
    assert words == ["Кошка", "видит", ":", "«", "Собака", "»", "идёт", ".", "Собака", "идёт", "!"]
    for shares in ([word.attention for word in explained.words], [word.gradient for word in explained.words]):
        assert max(shares) == 1.0
        assert min(shares) >= 0.0
    assert explained.label in ("entailment", "not_entailment")
    assert 0.5 <= explained.probability <= 1.0


def test_the_page_of_a_file_is_escaped_and_needs_nothing_else(finetune, fine_tuned, tmp_path):
    (tmp_path / "texts.txt").write_text("<b>Кошка</b> & мышь\tСобака\n\nДа\n", encoding="utf-8")
    answer = finetune(
        "explain", "--model", fine_tuned["lean_albert"], "--file", tmp_path / "texts.txt", "--output",
        tmp_path / "page.html",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    page = (tmp_path / "page.html").read_text()
    assert page.count("<article>") == 2
    assert page.count("<small>attention</small>") == page.count("<small>gradient</small>") == 2
    assert "<b>Кошка" not in page
    assert "http" not in page


@pytest.mark.parametrize("words", [(), ("--text", "а", "--file", "b.txt")])
def test_one_of_text_and_file_is_needed(finetune, fine_tuned, tmp_path, words):
    answer = finetune("explain", "--model", fine_tuned["bert"], "--output", tmp_path / "page.html", *words)
    assert answer.code == 2
    assert "either --text or --file" in answer.error


def test_a_model_that_is_not_fine_tuned_is_refused(finetune, models, tmp_path):
    answer = finetune("explain", "--model", models["bert"], "--text", "а", "--output", tmp_path / "page.html")
    assert answer.code == 2
    assert "holds no fine-tuned model" in answer.error


def test_the_command_is_quiet_and_ends_with_its_own_code():
    program = "import sys; sys.argv[0] = 'finetune'; from finetune.cli import main; main()"
    answer = subprocess.run(
        [sys.executable, "-c", program, "run", "TERRa", "--no-such-option"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr == "error: No such option: --no-such-option\n"
