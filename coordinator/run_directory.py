"""The directory of one run on the coordinator's disk; one coordinator at a time.

    RUN_DIR/  run.toml  identity.key (0600)  join.txt  dashboard.txt  status.json  totals.json  settings.json
              control.txt  control.token (0600)
              history.sqlite  bundle/  checkpoints/  last_state.safetensors  tensorboard/  published.txt
              commission.json  cache/ (instead of bundle/, of a further coordinator)

Everything in it is written beside its place and renamed, so a kill at any moment leaves the old or the new file; all
but the status, which is renewed every second, is synced as well, so a power cut does too.
"""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path
from typing import IO

from coordinator.status import RunStatus
from swarm.bundle import MANIFEST_NAME
from swarm.errors import BadInput, OperationFailed
from swarm.spec import RunSpec, load_spec
from swarm.whole_file import write_whole

DEFAULT_PARENT = Path("runs")


class RunDirectory:
    """Paths and small files of one run.

    :raises BadInput: the path cannot hold a run, or holds another one
    :raises OperationFailed: another coordinator uses it
    """

    def __init__(self, path: Path):
        self.path = path
        self.spec_path = path / "run.toml"
        self.identity_path = path / "identity.key"
        self.join_path = path / "join.txt"
        self.dashboard_path = path / "dashboard.txt"
        self.status_path = path / "status.json"
        self.history_path = path / "history.sqlite"
        self.bundle_path = path / "bundle"
        self.checkpoints_path = path / "checkpoints"
        self.totals_path = path / "totals.json"
        self.last_state_path = path / "last_state.safetensors"
        self.published_path = path / "published.txt"
        self.commission_path = path / "commission.json"
        self.cache_path = path / "cache"
        self.settings_path = path / "settings.json"
        self.admission_path = path / "admission.json"
        self.ticket_path = path / "ticket.json"
        self.control_path = path / "control.txt"
        self.token_path = path / "control.token"
        self._lock: IO[str] | None = None

    def open(self, spec_source: Path) -> RunSpec:
        """Create the directory or take it over, lock it, and return the spec it is for.

        Until there is something of a run in it, the spec may change: a first start that failed claims nothing.
        """
        spec, source = load_spec(spec_source), spec_source.read_bytes()
        try:
            self.checkpoints_path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            if not self._has_begun():
                write_whole(self.spec_path, source)
        except OSError as error:
            raise BadInput(
                f"run directory {self.path} cannot be used ({error.strerror}): choose another with --run-dir"
            ) from None
        kept = load_spec(self.spec_path)
        if kept.digest != spec.digest:
            raise BadInput(
                f"run directory {self.path} holds run {kept.run_id}, but {spec_source} describes {spec.run_id}: "
                "choose another with --run-dir, or undo the change to the spec"
            )
        return spec

    def write_status(self, status: RunStatus) -> None:
        """Publish the status for `coordinator status`."""
        write_whole(self.status_path, status.model_dump_json(indent=1).encode(), lasting=False)

    def write_commission(self, commission: str) -> None:
        """Keep what makes this coordinator one of a run that another one began."""
        write_whole(self.commission_path, commission.encode())

    def write_published(self, digest: str) -> None:
        """Keep which checkpoint was uploaded last, for the next start."""
        write_whole(self.published_path, f"{digest}\n".encode())

    def read_published(self) -> str:
        """Digest of the checkpoint that was uploaded last; empty if none was."""
        try:
            return self.published_path.read_text(errors="replace").strip()
        except OSError:
            return ""

    def write_join_line(self, line: str) -> None:
        """Keep the `peer join …` line to hand out."""
        write_whole(self.join_path, f"{line}\n".encode())

    def write_dashboard_address(self, address: str) -> None:
        """Keep where the live page is."""
        write_whole(self.dashboard_path, f"{address}\n".encode())

    def write_control_address(self, address: str) -> None:
        """Keep where the control API is."""
        write_whole(self.control_path, f"{address}\n".encode())

    def _has_begun(self) -> bool:
        made_once = (self.bundle_path / MANIFEST_NAME, self.commission_path, self.history_path)
        return self.spec_path.exists() and (
            any(path.exists() for path in made_once) or any(self.checkpoints_path.iterdir())
        )

    def _take_lock(self) -> None:
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperationFailed(
                f"another coordinator already runs in {self.path}: stop it, or choose another --run-dir"
            ) from None


def find_run_directory(given: Path | None) -> Path:
    """The run directory a sub-command means: the one given, or the only one under ./runs."""
    if given is not None:
        if not given.is_dir():
            raise BadInput(
                f"run directory {given} does not exist: give the one that `coordinator run` printed"
            )
        return given
    found = sorted(path.parent for path in DEFAULT_PARENT.glob("*/run.toml"))
    if not found:
        raise BadInput(f"no run under ./{DEFAULT_PARENT}: give --run-dir DIR as printed by `coordinator run`")
    if len(found) > 1:
        raise BadInput(
            f"several runs under ./{DEFAULT_PARENT}: give one of them with --run-dir: {', '.join(map(str, found))}"
        )
    return found[0]


def require_free_space(path: Path, needed: int, what: str) -> None:
    """Raise `OperationFailed` if the disk under `path` has less than `needed` bytes left."""
    free = shutil.disk_usage(path).free
    if free < needed:
        raise OperationFailed(
            f"{path} has {free / 2**20:.0f} MiB left, but {what} needs {needed / 2**20:.0f} MiB: make room"
        )
