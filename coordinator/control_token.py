"""The secret that whoever changes a run must show: made once, kept in the run directory for its owner only."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from swarm.errors import OperationFailed

TOKEN_BYTES = 32


def load_or_create_token(path: Path) -> str:
    """Read the token at `path`, or make one there (mode 0600); raises `OperationFailed`."""
    try:
        if path.exists() and (token := path.read_text().strip()):
            return token
        token = secrets.token_urlsafe(TOKEN_BYTES)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{token}\n")
    except (OSError, UnicodeDecodeError) as error:
        raise OperationFailed(f"the token of the control API cannot be kept in {path} ({error})") from None
    return token
