"""What `coordinator run` is told, and whether it can be done: better found out before a corpus is prepared."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.control_server import Tls, bind_control
from coordinator.dashboard import bind_dashboard
from coordinator.host_port import parse_host_port
from coordinator.local_peer import require_valid_options
from swarm.addresses import require_port_free, require_valid_maddrs
from swarm.errors import BadInput

DEFAULT_LISTEN = "/ip4/0.0.0.0/tcp/31337"


@dataclass(frozen=True)
class CoordinatorOptions:
    """What may differ between coordinators of one run.

    :param authority: key of the run's first coordinator, for a further one; `invitation`: its token instead of the key
    :param resume_from: checkpoint, or folder of checkpoints, to begin with
    :param local_peer: options of a peer to start on this machine; None for none
    """

    spec_path: Path
    run_dir: Path | None = None
    initial_peers: Sequence[str] = ()
    host_maddrs: Sequence[str] = (DEFAULT_LISTEN,)
    announce_maddrs: Sequence[str] = ()
    dashboard: str = "127.0.0.1:8080"
    control: str = "127.0.0.1:0"
    control_tls: Tls | None = None
    exit_when_finished: bool = False
    authority: Path | None = None
    invitation: str | None = None
    resume_from: Path | None = None
    local_peer: Sequence[str] | None = None


def require_usable(options: CoordinatorOptions) -> None:
    """See that a run can be served as told: addresses, ports, TLS files, and the options of the peer on this machine.

    :raises BadInput: something is malformed, or not there
    :raises OperationFailed: a port is in use
    """
    require_valid_maddrs(options.host_maddrs, options.announce_maddrs)
    require_port_free(options.host_maddrs)
    # both at a time, for they may be told to share a port
    with bind_dashboard(*parse_host_port(options.dashboard)), bind_control(options.control):
        pass
    if options.control_tls is not None:
        options.control_tls.require_usable()
    if options.local_peer is not None:
        require_valid_options(options.local_peer)


def tls_of(certificate: Path | None, key: Path | None) -> Tls | None:
    """The control API's TLS files, both or none; raises `BadInput`."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise BadInput("--control-tls-cert and --control-tls-key belong together: give both, or neither")
    return Tls(certificate, key)


def local_peer_of(wanted: bool, options: str) -> list[str] | None:
    """The words of a local peer's options; None if none is wanted. Raises `BadInput`."""
    if options and not wanted:
        raise BadInput("--local-peer-options is for --with-local-peer: give both, or neither")
    try:
        return shlex.split(options) if wanted else None
    except ValueError as error:
        raise BadInput(f"--local-peer-options {options!r} cannot be split into words: {error}") from None
