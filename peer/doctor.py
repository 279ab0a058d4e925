"""`peer doctor`: looks at everything that a peer needs before it joins, and says in words what to do about the rest.

A check that breaks is itself a finding, never a traceback. Exit code 0 if nothing fails, 1 otherwise.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from peer.doctor_finding import Finding, Verdict
from peer.doctor_machine import check_cache, check_device, check_memory, check_open_files, check_shared_memory
from peer.doctor_network import NetworkOptions, examine_network
from peer.doctor_packages import check_codec, check_packages, check_python
from swarm.process_limits import increase_file_limit
from swarm.sockets import sockets_of_our_own

logger = logging.getLogger(__name__)

MARKS = {Verdict.OK: "ok  ", Verdict.WARN: "warn", Verdict.FAIL: "FAIL"}


@dataclass(frozen=True)
class DoctorOptions:
    """What `peer join` would be told."""

    cache_dir: Path
    device: str | None = None
    ranks: int | None = None
    network: NetworkOptions = field(default_factory=NetworkOptions)


def examine(options: DoctorOptions) -> list[Finding]:
    """Look at everything, one finding or more for each thing."""
    open_files = _guarded("open files", check_open_files)
    increase_file_limit()
    findings = [
        *_guarded("python", check_python),
        *_guarded("packages", check_packages),
        *_guarded("8-bit averaging", check_codec),
        *open_files,
        *_guarded("shared memory", check_shared_memory),
        *_guarded("memory", check_memory),
        *_guarded("cache folder", lambda: check_cache(options.cache_dir)),
        *_guarded("device", lambda: check_device(options.device, options.ranks)),
    ]
    with sockets_of_our_own():
        return [*findings, *_guarded("network", lambda: examine_network(options.network))]


def doctor_command(options: DoctorOptions, *, as_json: bool) -> int:
    """Examine, print, and return the exit code."""
    findings = examine(options)
    ok = all(finding.verdict is not Verdict.FAIL for finding in findings)
    if as_json:
        print(
            json.dumps({"ok": ok, "findings": [asdict(finding) for finding in findings]}, ensure_ascii=False)
        )
    else:
        print("\n".join(describe(findings)))
    return 0 if ok else 1


def describe(findings: Sequence[Finding]) -> Iterable[str]:
    """Lines for a person, the remedy below what it is for."""
    for finding in findings:
        yield f"{MARKS[finding.verdict]}  {finding.check}: {finding.words}"
        if finding.fix:
            yield f"      -> {finding.fix}"
    failed = sum(finding.verdict is Verdict.FAIL for finding in findings)
    warned = sum(finding.verdict is Verdict.WARN for finding in findings)
    yield f"{failed} to fix before joining, {warned} to look at" if failed or warned else "ready to join"


def _guarded(name: str, check: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    """The findings of a check; one that says that it broke, if it did."""
    try:
        found = check()
    except Exception as error:  # a doctor that stumbles over one thing must still look at the others
        logger.debug("check %s", name, exc_info=True)
        words = f"could not be looked at ({type(error).__name__}: {' '.join(str(error).split())})"
        return [Finding(name, Verdict.FAIL, words, "run again with --debug, and tell us")]
    return found if isinstance(found, list) else [found]
