"""What the command lines share: the same complaint is not made every second."""

import subprocess
import sys

COMPLAIN = """
import logging
from swarm.cli_support import configure_logging

configure_logging({debug})
log = logging.getLogger("disk")
for _ in range(3):
    log.warning("the disk of %s is full", "anna")
log.warning("the disk of %s is full", "boris")
"""


def complaints(debug: bool) -> list[str]:
    process = subprocess.run(
        [sys.executable, "-c", COMPLAIN.format(debug=debug)], capture_output=True, text=True, check=True
    )
    return [line.split(" ", 1)[1] for line in process.stderr.splitlines() if "full" in line]


def test_a_sentence_is_not_repeated() -> None:
    assert complaints(debug=False) == ["disk: the disk of anna is full", "disk: the disk of boris is full"]


def test_debugging_shows_every_one() -> None:
    assert len(complaints(debug=True)) == 4
