"""Errors whose message is the one line a user reads: what was wrong, where, what to do next."""

from __future__ import annotations

from data_prep.errors import PlainError


class FinetuneError(PlainError):
    """Base of every error a user can cause or meet."""


class BadInput(FinetuneError):
    """An option, a file or a model directory cannot be used."""

    exit_code = 2


class OperationFailed(FinetuneError):
    """The input was fine, but the work could not be done."""
