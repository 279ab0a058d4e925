"""The exceptions whose message is the one line a user reads.

Commands turn `BadInput` into exit code 2 and `OperationFailed` into exit code 1; anything else is a defect of ours.
"""

from __future__ import annotations

from data_prep.errors import PlainError


class ArtelError(PlainError):
    """Base of errors meant for people: says what was wrong, where, and what to do next."""


class BadInput(ArtelError):
    """An argument, a file or a spec given by the user cannot be used."""

    exit_code = 2


class OperationFailed(ArtelError):
    """The input was fine, but the world did not play along: a dead address, a full disk, a port in use."""
