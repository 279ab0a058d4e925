"""Why a file that this project writes cannot be read, in words for a person instead of pydantic's."""

from __future__ import annotations

from pydantic import ValidationError


def why_unreadable(error: OSError | ValidationError) -> str:
    """The system's reason, or the first key that does not fit and why.

    >>> why_unreadable(OSError(13, "Permission denied"))
    'Permission denied'
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    fault = error.errors()[0]
    key, words = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
    return f"`{key}`: {words}" if key else words
