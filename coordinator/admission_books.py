"""What the admission desk must remember, in RUN_DIR/admission.json (mode 0600): it holds no secret."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from coordinator.unreadable import why_unreadable
from swarm.errors import OperationFailed
from swarm.whole_file import write_whole


class Eviction(BaseModel):
    """One peer whose admission was ended.

    :param time: Unix time; when we heard of it, if another coordinator decided it
    :param by: peer id of that coordinator; empty for our own decision
    """

    model_config = ConfigDict(frozen=True)

    name: str
    reason: str
    time: float
    by: str = ""


class Books(BaseModel):
    """Peer ids by invitation, evictions by peer id, and invitations that admit nobody any more."""

    model_config = ConfigDict(frozen=True)

    admitted: dict[str, tuple[str, ...]] = {}
    evicted: dict[str, Eviction] = {}
    withdrawn: tuple[str, ...] = ()

    def with_admitted(self, key: str, peer_id: str) -> Books:
        """These books after an invitation has admitted one more peer."""
        came = (*self.admitted.get(key, ()), peer_id)
        return self.model_copy(update={"admitted": {**self.admitted, key: came}})

    def with_evicted(self, evicted: Mapping[str, Eviction]) -> Books:
        """These books after evictions, which also withdraw the invitations that those peers came with."""
        keys = {key for key, peers in self.admitted.items() if not evicted.keys().isdisjoint(peers)}
        return self.model_copy(
            update={
                "evicted": {**self.evicted, **evicted},
                "withdrawn": tuple(sorted({*self.withdrawn, *keys})),
            }
        )


def load_books(path: Path) -> Books:
    """The books of an earlier start, empty ones if there was none; raises `OperationFailed`."""
    try:
        return Books.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Books()
    except (OSError, ValidationError) as error:
        raise OperationFailed(
            f"{path} cannot be read ({why_unreadable(error)}): restore it, or delete it, which readmits whom it evicted"
        ) from None


def keep_books(path: Path, books: Books) -> None:
    """Write them, wholly or not at all; raises `OperationFailed`."""
    try:
        write_whole(path, books.model_dump_json(indent=1).encode(), mode=0o600)
    except OSError as error:
        raise OperationFailed(f"{path} cannot be written ({error.strerror}): nothing was changed") from None
