"""A further coordinator of a run that another one has begun: same bundle, same authority, its own machine.

The operator gives it the key of the first coordinator once (`--authority`), or an invitation for a coordinator
(`--ticket`); either way it gets the authority's warrant for its head records, and a ticket. The bundle comes from the
swarm, so that both serve the same files under the same fingerprint. Bundle and warrant are kept, so it starts again
without the first coordinator, whose machine may be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from coordinator.unreadable import why_unreadable
from swarm.addresses import Address
from swarm.bundle import BundleCache, SignedManifest, load_spec_of
from swarm.credentials import Credentials
from swarm.errors import BadInput, OperationFailed
from swarm.identity import Identity
from swarm.spec import RunSpec
from swarm.ticket import write_ticket
from swarm.transfer import fetch_bundle
from swarm.warrant import is_warranted, write_warrant

OWN_NAME = "coordinator"


class Commission(BaseModel):
    """What makes this coordinator one of the run's: kept as `commission.json` in its run directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest: SignedManifest
    warrant: str


def be_commissioned(
    authority_path: Path | None,
    contacts: Sequence[Address],
    cache: BundleCache,
    spec: RunSpec,
    identity: Identity,
    credentials: Credentials,
) -> Commission:
    """Fetch the run's bundle from any participant, and have ourselves warranted.

    :param authority_path: the authority's key, with which we warrant ourselves; without it `credentials` hold the
        invitation, which the authority must have made and redeems
    :raises BadInput: there is no key, no address, or the run there is another one, or does not want us
    """
    authority = _authority_of(authority_path) if authority_path is not None else None
    if not contacts:
        raise BadInput(
            "--authority and --ticket need --initial-peers: addresses of the run that the first coordinator serves"
        )
    if authority is not None:
        credentials.keep(write_ticket(authority, spec.run_id, identity.peer_id, OWN_NAME, "coordinator"))
    signed, bundle = fetch_bundle(
        contacts,
        cache,
        authority=authority.peer_id if authority is not None else None,
        credentials=credentials,
    )
    theirs = load_spec_of(bundle, signed.open())
    if theirs.digest != spec.digest:
        raise BadInput(
            f"the run at {contacts[0].text} is {theirs.run_id}, but the spec describes {spec.run_id}: "
            "give the spec that the first coordinator was started with"
        )
    warrant = (
        write_warrant(authority, spec.run_id, identity.peer_id)
        if authority is not None
        else credentials.warrant
    )
    if not is_warranted(warrant, spec.run_id, identity.peer_id, [signed.open().authority]):
        raise BadInput(
            "the ticket given does not make this machine a coordinator: it takes one of `coordinator invite NAME "
            "--role coordinator`, used for the first time"
        )
    return Commission(manifest=signed, warrant=warrant)


def _authority_of(path: Path) -> Identity:
    if not path.is_file():
        raise BadInput(
            f"--authority {path} does not exist: copy identity.key of the first coordinator's run directory"
        )
    try:
        return Identity.load(path)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"--authority {path} holds no identity key ({error}): give identity.key of the first coordinator's run "
            "directory"
        ) from None


def load_commission(path: Path, spec: RunSpec, identity: Identity) -> Commission | None:
    """The commission of an earlier start; None if there was none. Raises `OperationFailed` if it is not ours."""
    try:
        commission = Commission.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise OperationFailed(
            f"{path} cannot be read ({why_unreadable(error)}): delete it and give --authority again"
        ) from None
    authority = commission.manifest.open().authority
    if not is_warranted(commission.warrant, spec.run_id, identity.peer_id, [authority]):
        raise OperationFailed(f"{path} is of another identity or run: delete it and give --authority again")
    return commission
