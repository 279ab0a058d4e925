"""Imports go down the floors only; hivemind's private parts are used where CONTRIBUTING.md says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("model", "data_prep", "swarm", "peer", "coordinator", "finetune")
IMPORTS_HIVEMIND = re.compile(r"^\s*(import|from) hivemind", re.MULTILINE)


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
        if IMPORTS_HIVEMIND.search(path.read_text(encoding="utf-8"))
    }
    assert importers == {"swarm"}


def test_hiveminds_private_parts_are_used_where_it_is_said_only():
    rule = re.search(r"^- \*\*hivemind\*\*.*?(?=^- )", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)[0]
    # in a process without other threads: Python 3.11 can fail to parse in two at a time ("recursion depth mismatch")
    program = "from tests.test_floors import print_users_of_private_parts as users; users()"
    users = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(users) == set(re.findall(r"`(\w+\.py)`", rule))


def print_users_of_private_parts() -> None:
    for path in (ROOT / "swarm").glob("*.py"):
        if uses_private_parts(path.read_text(encoding="utf-8")):
            print(path.name)


def uses_private_parts(source: str) -> bool:
    """Whether a file that imports hivemind reads private attributes that it does not set itself."""
    if not IMPORTS_HIVEMIND.search(source):
        return False
    nodes = list(ast.walk(ast.parse(source)))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr)]
    ours = {node.attr for node in attributes if isinstance(node.ctx, ast.Store) and _is_self(node.value)}
    ours |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    return any(node.attr not in ours or not _is_self(node.value) for node in attributes)


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"
