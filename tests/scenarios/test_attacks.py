"""Attacks on a small swarm by invitation; poisoners are compared with a calm run by the tool itself."""

from __future__ import annotations

import pytest

from tests.scenarios.attacks import (
    attack_from_inside,
    attack_from_outside,
    attack_with_poison,
    by_invitation,
    show,
    swarm_by_invitation,
    wait_for_steps,
)


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_strangers_and_forgers_get_nothing(make_spec, tmp_path):
    spec = by_invitation(make_spec(), tmp_path, "mean")
    with swarm_by_invitation(spec, tmp_path / "besieged", 2) as (swarm, line):
        wait_for_steps(swarm, "honest-0", 1)
        for attack in (attack_from_outside, attack_from_inside):
            for outcome in attack(swarm, line):
                show(outcome)
                assert outcome.repelled, outcome


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_poison_is_told_and_its_sender_evicted(make_spec, tmp_path):
    spec = by_invitation(make_spec(), tmp_path, "mean")
    (outcome,) = attack_with_poison(spec, tmp_path, ["nan"], peers=4, steps=10)
    assert outcome.repelled, outcome
    assert "nobody evicted" not in outcome.happened
