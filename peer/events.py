"""What `peer join --json` prints: one JSON object per line, the first word of which is the event."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any


def print_event(event: str, **fields: Any) -> None:
    """Print one event with its fields and the time."""
    line = json.dumps({"event": event, **fields, "time": round(time.time(), 3)}, ensure_ascii=False)
    print(line, flush=True)


def teller_of_failures(arguments: Sequence[str]) -> Callable[[str], None] | None:
    """What prints the event `error`, if this command line of `peer` asks for events; it may be a wrong one."""
    words = [argument for argument in arguments if argument != "--debug"]
    if words[:1] != ["join"] or "--json" not in words:
        return None
    return lambda text: print_event("error", text=text)
