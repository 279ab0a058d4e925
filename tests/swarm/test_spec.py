"""The run spec: what is refused and in which words, and that equal specs are one run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from swarm.errors import BadInput
from swarm.spec import RunSpec, load_spec, parse_spec

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["demo.toml", "rulean.toml"])
def test_examples_are_valid(name):
    spec = load_spec(EXAMPLES / name)
    assert spec.run_id == f"{spec.name}-{spec.digest[:12]}"


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('name = "x"\nsede = 3', "unknown key `sede`: did you mean `seed`?"),
        ('name = "x"\n[training]\ntarget_batchsize = 3', "did you mean `target_batch_size`?"),
        ('name = "x"\n[training]\ntarget_batch_size = 0', "`training.target_batch_size`"),
        ('name = "x"\n[training]\nwarmup_steps = 20\ntotal_steps = 10', "warmup_steps must be smaller"),
        ('name = "Has Spaces"', "`name`: must be 1 to 41 lower-case Latin letters, digits and hyphens"),
        ('name = "x"\nmodel = 3', "`model`: must be a table, [model]"),
        ('name = "x"\nlocal_steps = 3', "`local_steps`: must be a table, [local_steps]"),
        ('name = "x"\n[data]\nweights = 3', "`data.weights`: must be a table, [data.weights]"),
        ('name = "x"\n[local_steps]\nbatch_sise = 3', "did you mean `batch_size`?"),
        ('name = "x"\n[checkpoints]\npublish = "lean"', "`checkpoints.publish`: must be a repository"),
        ('name = "x"\n[model]\nhidden_size = 10\nnum_attention_heads = 4', "must be a multiple"),
        ('name = "x"\n[leases]\nperiod = 5.0\nexpiration = 6.0', "at least 3 times period"),
        ('name = "x"\n[data]\nsequence_length = 4096', "must not exceed model.max_position_embeddings"),
        ('name = "x"\n[data]\nsequence_length_start = 32', "go together"),
        (
            'name = "x"\n[data]\nsequence_length_start = 512\nsequence_length_warmup_steps = 9',
            "must not exceed sequence_length",
        ),
        ('name = "x"\n[data]\nweights = { web = -1 }', "`data.weights.web`"),
        ('name = "x"\n[data]\nweights = { web = 0 }', "must not all be 0"),
        ("name = ", "is not valid TOML"),
        ("seed = 3", "`name`"),
    ],
)
def test_a_wrong_spec_is_refused_in_one_line_that_names_the_key(tmp_path, toml, words):
    path = tmp_path / "run.toml"
    path.write_text(toml)
    with pytest.raises(BadInput) as caught:
        load_spec(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def sections() -> Iterator[type[BaseModel]]:
    yield RunSpec
    for field in RunSpec.model_fields.values():
        kinds = get_args(field.annotation) or (field.annotation,)
        yield from (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))


@pytest.mark.parametrize("section", list(sections()), ids=lambda section: section.__name__)
def test_every_key_says_what_it_means(section):
    explained = set(re.findall(r"^ *:param (\w+): \S", section.__doc__, re.MULTILINE))
    keys = set(section.model_fields)
    if section is RunSpec:
        keys -= {"model", "data", "training", "averaging", "leases", "checkpoints"}
    assert explained == keys


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("model", "hidden_size"),
        ("data", "vocab_size"),
        ("training", "micro_batch_size"),
        ("averaging", "matchmaking_time"),
        ("local_steps", "batch_size"),
        ("leases", "expiration"),
        ("checkpoints", "keep_every"),
    ],
)
def test_a_typo_in_any_section_is_told_with_what_was_meant(section, key):
    typo = key.replace("_", "", 1) if "_" in key else key[:-1]
    with pytest.raises(BadInput, match=f"unknown key `{section}.{typo}`: did you mean `{key}`"):
        parse_spec({"name": "x", section: {typo: 10}}, origin="run.toml")


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("training", "learning_rate"),
        ("training", "max_grad_norm"),
        ("averaging", "allreduce_timeout"),
        ("leases", "expiration"),
        ("checkpoints", "timeout"),
    ],
)
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_value_without_end_is_refused(section, key, value):
    with pytest.raises(BadInput, match=f"`{section}.{key}`: Input should be a finite number"):
        parse_spec({"name": "x", section: {key: value}}, origin="run.toml")


def test_a_missing_spec_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        load_spec(tmp_path / "none.toml")


def test_a_spec_read_back_from_its_canonical_json_is_the_same_run():
    import json

    spec = load_spec(EXAMPLES / "demo.toml")
    again = parse_spec(json.loads(spec.canonical_json()), origin="bundle")
    assert again == spec
    assert again.run_id == spec.run_id


@given(seed=st.integers(0, 2**31 - 1), other=st.integers(0, 2**31 - 1))
def test_different_specs_are_different_runs(seed, other):
    first, second = RunSpec(name="x", seed=seed), RunSpec(name="x", seed=other)
    assert (first.run_id == second.run_id) == (seed == other)


def test_samples_grow_with_the_global_step():
    data = {"sequence_length": 512, "sequence_length_start": 128, "sequence_length_warmup_steps": 100}
    length = RunSpec(name="x", data=data).data.length_schedule
    assert [length(step) for step in (0, 49, 50, 99, 100, 10_000)] == [128, 256, 320, 448, 512, 512]
    assert RunSpec(name="x").data.length_schedule(0) == 128


def test_learning_rate_warms_up_and_decays_to_zero():
    spec = RunSpec(name="x", training={"warmup_steps": 4, "total_steps": 10, "learning_rate": 1.0})
    rates = [spec.learning_rate_at(step) for step in range(11)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[4:]))
    assert rates[10] == 0.0
