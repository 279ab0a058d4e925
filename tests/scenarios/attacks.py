"""Attacks on a real small swarm, one after another: what each could do, and what it did.

    python -m tests.scenarios.attacks                       # strangers, insiders and poisoners
    python -m tests.scenarios.attacks --poison flip --aggregation centred_clipping

Every attacker is a process of its own. Strangers and insiders attack a run by invitation while it trains; poisoners
are invited peers whose gradients are spoilt, and the held-out loss of the others after as many global steps is compared
with that of a calm run of as many honest peers. Exits with 1 if something got through.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from data_prep.tokenizer import load_tokenizer
from swarm.bundle import SPEC_NAME, TOKENIZER_FOLDER, file_digest
from swarm.spec import load_spec
from tests.scenarios.poisoner import POISONS
from tests.scenarios.storm import endless
from tests.scenarios.swarm_under_test import ROOT, SwarmUnderTest
from tests.spec_toml import spec_toml

LOSS_TOLERANCE = 0.02
STARTING_SECONDS = 240.0
STEPPING_SECONDS = 400.0
TOKEN = re.compile(r"--ticket (\S+)$")


@dataclass(frozen=True)
class Outcome:
    """One attack: what happened, and whether that is what may happen."""

    attack: str
    happened: str
    repelled: bool


@contextmanager
def swarm_by_invitation(spec_path: Path, folder: Path, honest: int) -> Iterator[tuple[SwarmUnderTest, str]]:
    """A training swarm, and the line that its operator would give to more peers."""
    folder.mkdir()
    swarm = SwarmUnderTest(folder, spec_path)
    try:
        swarm.start_coordinator()
        swarm.wait_for(lambda: (swarm.run_dir / "control.txt").exists(), "the control API")
        line = invite(swarm)
        for index in range(honest):
            swarm.start_peer(f"honest-{index}", line=line)
        yield swarm, line
    finally:
        swarm.end()


def invite(swarm: SwarmUnderTest) -> str:
    """The join line with a token."""
    code = "from coordinator.cli import main; main()"
    command = ["invite", "somebody", "--machines", "50", "--run-dir", str(swarm.run_dir)]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def wait_for_steps(swarm: SwarmUnderTest, name: str, count: int) -> None:
    """Wait until a peer has made so many more global steps."""
    before = max(swarm.steps(name), default=0)
    swarm.wait_for(
        lambda: max(swarm.steps(name), default=0) >= before + count,
        f"{count} steps of {name}",
        deadline=STEPPING_SECONDS,
    )


def setup_of(swarm: SwarmUnderTest, line: str, *, insider: bool) -> str:
    """What an intruder is told."""
    spec = load_spec(swarm.spec_path)
    address = next(word for word in line.split() if word.startswith("/ip4/"))
    stolen = next(iter(sorted((swarm.folder / "cache" / "tickets").glob("*.json"))))
    token = TOKEN.search(line)
    assert token is not None
    return json.dumps(
        {
            "address": address,
            "run_id": spec.run_id,
            "folder": str(swarm.folder),
            "spec": str(swarm.spec_path),
            "token": token[1] if insider else None,
            "ticket": stolen.read_text(),
            "file": file_digest(swarm.run_dir / "bundle" / SPEC_NAME),
            "ports": listening_ports(swarm),
            "vocab_size": len(load_tokenizer(swarm.run_dir / "bundle" / TOKENIZER_FOLDER)),
        }
    )


def listening_ports(swarm: SwarmUnderTest) -> list[int]:
    """TCP ports on which the swarm's processes listen."""
    swarm.remember_processes()
    found = psutil.net_connections("tcp")
    return sorted(
        {entry.laddr.port for entry in found if entry.status == "LISTEN" and entry.pid in swarm.pids_seen}
    )


def intrude(swarm: SwarmUnderTest, line: str, kind: str, *, insider: bool = False) -> dict[str, Any]:
    """Run one intruder to its end; what it says it got."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.scenarios.intruder", kind, setup_of(swarm, line, insider=insider)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=STEPPING_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the intruder {kind} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def attack_from_outside(swarm: SwarmUnderTest, line: str) -> Iterator[Outcome]:
    """Everything that somebody without a ticket can try."""
    got = intrude(swarm, line, "read_and_write")
    repelled = not any(entry["read"] or entry["written"] for entry in got.values())
    yield Outcome("a stranger reads and writes records, with a stolen ticket, too", json.dumps(got), repelled)

    got = intrude(swarm, line, "average")
    yield Outcome("a stranger asks to average", json.dumps(got), set(got["codes"]) <= {"PROTOCOL_VIOLATION"})

    got = intrude(swarm, line, "download")
    refused = all("refused" in answer for answer in got["manifests"])
    nothing = got["state_bytes"] == got["file_bytes"] == 0 and refused
    yield Outcome(
        "a stranger downloads state and bundle, with a stolen ticket, too", json.dumps(got), nothing
    )

    got = intrude(swarm, line, "forge_tickets")
    yield Outcome(
        "forged, expired and foreign tickets and invitations, a megabyte of junk",
        f"{got['tickets']} of {len(got['refusals'])} accepted",
        got["tickets"] == 0 and "refused" in got["oversized"],
    )

    got = intrude(swarm, line, "besiege")
    wait_for_steps(swarm, "honest-0", 2)
    yield Outcome(
        "garbage on every port, thousands of connections, readers that never end",
        f"{got['connections']} connections open, {got['refused']} refused; the swarm went on",
        got["connections"] > 0,
    )


def attack_from_inside(swarm: SwarmUnderTest, line: str) -> Iterator[Outcome]:
    """What somebody who was invited can try with records and states."""
    got = intrude(swarm, line, "forge_progress", insider=True)
    taken = sorted(name for name, yes in got["taken"].items() if yes)
    wait_for_steps(swarm, "honest-0", 2)
    # a lease far ahead is well-formed; nobody believes it, which the steps show
    yield Outcome(
        "an insider forges its step, the head, evictions, records that never end",
        f"stored: {', '.join(taken) or 'none'}; the swarm went on",
        set(taken) <= {"far ahead"},
    )
    yield stay_ahead(swarm, line)
    got = intrude_while_somebody_joins(swarm, line)
    wait_for_steps(swarm, "newcomer", 1)
    refused = "refused the state" in swarm.errors("newcomer") or got["asked"] == 0
    yield Outcome(
        "an insider offers newcomers noise as the state",
        f"asked {got['asked']} times, {swarm.errors('newcomer').count('refused the state')} refusals seen; "
        "the newcomer trains",
        refused,
    )


def stay_ahead(swarm: SwarmUnderTest, line: str) -> Outcome:
    """An insider that says it is a step ahead, which nobody can fetch."""
    intruder = subprocess.Popen(
        [sys.executable, "-m", "tests.scenarios.intruder", "stay_ahead", setup_of(swarm, line, insider=True)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert intruder.stdout is not None
        assert intruder.stdout.readline()
        wait_for_steps(swarm, "honest-0", 4)
        goes_on = intruder.poll() is None
    finally:
        intruder.kill()
        intruder.wait()
    noticed = swarm.errors("honest-0").count("claims a step that it does not hand out")
    return Outcome(
        "an insider is always one step ahead, and hands no state out",
        f"noticed {noticed} times; the swarm made four steps meanwhile",
        goes_on and noticed > 0,
    )


def intrude_while_somebody_joins(swarm: SwarmUnderTest, line: str) -> dict[str, Any]:
    """An insider that gives noise, and a newcomer that looks for a state meanwhile."""
    setup = setup_of(swarm, line, insider=True)
    intruder = subprocess.Popen(
        [sys.executable, "-m", "tests.scenarios.intruder", "forge_state", setup],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    swarm.start_peer("newcomer", line=line)
    output, _errors = intruder.communicate(timeout=STEPPING_SECONDS)
    return json.loads(output.splitlines()[-1])


def loss_after(
    spec_path: Path, folder: Path, peers: int, poison: str | None, steps: int
) -> tuple[float, SwarmUnderTest]:
    """The held-out loss of a run after so many global steps, one of whose peers may be a poisoner."""
    with swarm_by_invitation(spec_path, folder, peers - (poison is not None)) as (swarm, line):
        if poison is not None:
            os.environ["ARTEL_TEST_POISON"] = poison
            swarm.start_peer("poisoner", line=line, program="tests.scenarios.poisoner")
        swarm.wait_for(
            lambda: any(item["step"] >= steps for item in swarm.status().get("checkpoints", [])),
            f"a checkpoint of step {steps}",
            deadline=STARTING_SECONDS + STEPPING_SECONDS,
        )
        found = min(
            (item for item in swarm.status()["checkpoints"] if item["step"] >= steps),
            key=lambda item: item["step"],
        )
        return found["heldout_loss"], swarm


def attack_with_poison(
    spec_path: Path, folder: Path, poisons: list[str], peers: int, steps: int
) -> Iterator[Outcome]:
    """One of the peers spoils its gradients; the calm run has as many honest peers as the spoilt ones."""
    calm, _swarm = loss_after(spec_path, folder / "calm", peers - 1, None, steps)
    for poison in poisons:
        loss, swarm = loss_after(spec_path, folder / poison, peers, poison, steps)
        excess = loss / calm - 1
        events = [line for line in swarm.errors("coordinator").splitlines() if "was evicted" in line]
        yield Outcome(
            f"gradients of 1 of {peers} peers: {poison}",
            f"held-out loss {loss:.4f} after {steps} steps, calm {calm:.4f} ({excess:+.2%}); "
            + (events[0].split(": ", 1)[-1] if events else "nobody evicted"),
            excess <= LOSS_TOLERANCE,
        )


def by_invitation(spec_path: Path, folder: Path, aggregation: str) -> Path:
    """The same run, but by invitation, without an end, and with checkpoints close to each other."""
    spec = load_spec(endless(spec_path, folder))
    values = spec.model_dump(mode="json")
    values["admission"] = "invite"
    values["averaging"]["aggregation"] = aggregation
    path = folder / "attacked.toml"
    path.write_text(spec_toml(values))
    return path


def main() -> int:
    """Run the attacks that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", type=Path, default=ROOT / "examples" / "demo.toml")
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="global steps of the poisoned and the calm run")
    parser.add_argument(
        "--poison", nargs="*", choices=sorted(POISONS), help="only these; without a name: none"
    )
    parser.add_argument("--aggregation", choices=["mean", "centred_clipping"], default="mean")
    parser.add_argument("--only-poison", action="store_true", help="leave strangers and forgers out")
    given = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="artel-attacks-") as temporary:
        folder = Path(temporary)
        spec_path = by_invitation(given.spec, folder, given.aggregation)
        if not given.only_poison:
            with swarm_by_invitation(spec_path, folder / "besieged", 2) as (swarm, line):
                wait_for_steps(swarm, "honest-0", 1)
                for attack in (attack_from_outside, attack_from_inside):
                    for outcome in attack(swarm, line):
                        outcomes.append(outcome)
                        show(outcome)
        poisons = sorted(POISONS) if given.poison is None else given.poison
        if poisons:
            for outcome in attack_with_poison(spec_path, folder, poisons, given.peers, given.steps):
                outcomes.append(outcome)
                show(outcome)
    return 0 if all(outcome.repelled for outcome in outcomes) else 1


def show(outcome: Outcome) -> None:
    """One line per attack."""
    print(
        f"{'repelled' if outcome.repelled else 'GOT THROUGH':12} {outcome.attack}: {outcome.happened}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
