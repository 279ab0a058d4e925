"""Writes the values of a run spec as the TOML that an operator would have written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def spec_toml(values: Mapping[str, Any]) -> str:
    """TOML of a run spec's values; `None` is left out, as TOML has no word for it.

    >>> print(spec_toml({"name": "demo", "data": {"weights": {"wiki": 0.5}, "license": None}}), end="")
    name = "demo"
    [data]
    weights = {"wiki" = 0.5}
    """
    values = {key: value for key, value in values.items() if value is not None}
    lines = [f"{key} = {_value(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for section, entries in values.items():
        if isinstance(entries, dict):
            lines.append(f"[{section}]")
            lines += [f"{key} = {_value(value)}" for key, value in entries.items() if value is not None]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(entry)}" for key, entry in value.items()) + "}"
    return json.dumps(value)
