"""Loops over numpy arrays, compiled by numba for the machine they run on.

To import this module takes half a second, and the first call of a function on a machine some seconds of compiling. What
was compiled is kept beside the source or in the user's cache folder. So import it where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# sums may be taken in any order, or they could not use vector instructions
FAST = {"reassoc", "contract", "nsz"}


def compiled(function: Callable[..., Any]) -> Any:
    """Decorator; the function lets other threads run, divides by zero as IEEE 754 says, and checks no bounds."""
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to write to
        return numba.njit(**options)(function)
