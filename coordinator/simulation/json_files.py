"""Reading the simulator's JSON files, with errors that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from swarm.errors import BadInput

Model = TypeVar("Model", bound=BaseModel)
DETAILS = 3


def read_json(model: type[Model], path: Path, *, what: str, maker: str) -> Model:
    """The model in a file; raises `BadInput` naming the first keys that do not fit.

    :param what: what the file holds, for the message; `maker`: the command that writes one
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BadInput(f"{what} {path} does not exist: `{maker}` writes one") from None
    except OSError as error:
        raise BadInput(f"{what} {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        details = "; ".join(
            f"`{'.'.join(map(str, detail['loc'])) or 'file'}`: {detail['msg']}"
            for detail in error.errors()[:DETAILS]
        )
        raise BadInput(f"{what} {path}: {details}") from None
