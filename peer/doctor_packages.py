"""Whether the installed packages are what Artel asks for, and whether 8-bit averaging really works with them.

A package of the wrong version is a failure only where it is known to break a run; the averaging codec is not
believed but tried: with numpy 2.4 or newer it fails silently, and every peer keeps its own values.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from peer.doctor_finding import Finding, Verdict
from swarm.codecs import why_8bit_fails

MIN_PYTHON, END_PYTHON = (3, 10), (3, 13)
FIX = "install again with the versions Artel was tested with: pip install --constraint constraints.txt ."


def check_python() -> Finding:
    """The interpreter's version."""
    found = ".".join(map(str, sys.version_info[:3]))
    if MIN_PYTHON <= sys.version_info[:2] < END_PYTHON:
        return Finding("python", Verdict.OK, f"Python {found}")
    return Finding("python", Verdict.FAIL, f"Python {found}", "use Python 3.10, 3.11 or 3.12")


def check_packages() -> Finding:
    """Installed packages against what Artel's own package asks for."""
    try:
        requirements = requires("artel") or []
    except PackageNotFoundError:
        words = "Artel runs from a folder and is not installed, so nothing tells which versions it needs"
        return Finding("packages", Verdict.WARN, words, FIX)
    return judge(requirements, installed_version)


def judge(requirements: Sequence[str], installed: Callable[[str], str | None]) -> Finding:
    """The finding for a list of requirements as packages' metadata have it.

    :param installed: version of a package, None if it is not there
    """
    wanted = [requirement for requirement in map(Requirement, requirements) if _applies(requirement)]
    wrong = []
    for requirement in wanted:
        found = installed(requirement.name)
        if found is None:
            wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found} is not {requirement.specifier}")
    if wrong:
        return Finding("packages", Verdict.FAIL, "; ".join(wrong), FIX)
    return Finding(
        "packages", Verdict.OK, f"all {len(wanted)} packages have the versions that Artel asks for"
    )


def check_codec() -> Finding:
    """Whether the 8-bit codec gives back what it was given."""
    found = ", ".join(f"{name} {installed_version(name)}" for name in ("numpy", "numba", "hivemind"))
    reason = why_8bit_fails()
    if reason is None:
        return Finding("8-bit averaging", Verdict.OK, f"works with {found}")
    words = f"fails with {found} ({reason}): this peer would keep its own values in every round"
    return Finding("8-bit averaging", Verdict.FAIL, words, "pip install --force-reinstall numba 'numpy<2.4'")


def installed_version(name: str) -> str | None:
    """Of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _applies(requirement: Requirement) -> bool:
    """Not a requirement of an extra, nor of another system."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})
