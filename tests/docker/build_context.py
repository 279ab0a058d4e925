"""What `docker build` would send to the engine: the files that `.dockerignore` lets through."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]


def context_files(root: Path = ROOT) -> list[PurePosixPath]:
    """Files of the tree in git's sense (tracked, or new and not ignored) that are in the build context."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    rules = parse_rules((root / ".dockerignore").read_text().splitlines())
    paths = sorted(PurePosixPath(line) for line in listed.stdout.splitlines() if (root / line).is_file())
    return [path for path in paths if not is_ignored(path, rules)]


def copy_context(target: Path, root: Path = ROOT) -> None:
    """Lay the build context out in a folder of its own."""
    for path in context_files(root):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path, target / path)


def parse_rules(lines: Iterable[str]) -> list[tuple[bool, str]]:
    """(ignores?, pattern) in the order of the file; `!` lets through again."""
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [(not pattern.startswith("!"), pattern.lstrip("!").strip("/")) for pattern in patterns]


def is_ignored(path: PurePosixPath, rules: Iterable[tuple[bool, str]]) -> bool:
    """The last rule that matches the path or a folder above it decides.

    >>> rules = parse_rules(["*", "!model", "**/*.pyc"])
    >>> [is_ignored(PurePosixPath(name), rules) for name in ("runs/a", "model/a.py", "model/b/a.pyc")]
    [True, False, True]
    """
    ignored = False
    candidates = [str(part) for part in (path, *path.parents) if str(part) != "."]
    for ignores, pattern in rules:
        if any(_as_regex(pattern).fullmatch(candidate) for candidate in candidates):
            ignored = ignores
    return ignored


@lru_cache
def _as_regex(pattern: str) -> re.Pattern[str]:
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(words.get(part, re.escape(part)) for part in parts))
