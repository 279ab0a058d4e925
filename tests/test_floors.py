"""Imports go down the floors only; hivemind's private parts are touched in one file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("model", "data_prep", "swarm", "peer", "coordinator", "finetune")


def test_imports_go_down_the_floors_only():
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_hivemind_is_imported_in_swarm_only():
    importers = {
        path.relative_to(ROOT).parts[0]
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"^\s*(import|from) hivemind", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert importers == {"swarm"}
