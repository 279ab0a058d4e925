"""Judging, evaluating and writing states in a child process with a hard time limit.

The child (`checkpoint_process`) holds a model of its own and gets every state through a pipe, so nothing it does, or
fails to do, stops the tracker, the page or the head records. Whatever takes longer than the limit is ended with
SIGKILL and is `CheckpointFailed`; the next request starts another child, which removes what the last one left
half-written. The child dies with this process.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from coordinator.checkpoints import Checkpoint, read_checkpoint
from swarm.errors import OperationFailed
from swarm.snapshot import Snapshot
from swarm.spec import RunSpec

logger = logging.getLogger(__name__)

CHILD = "coordinator.checkpoint_process"
# a child that has not even loaded its libraries after this time never will
START_SECONDS = 180.0
END_SECONDS = 5.0


class CheckpointFailed(OperationFailed):
    """A state was not judged or a checkpoint not written; says why."""


@dataclass(frozen=True)
class Verdict:
    """What the child found in a state.

    :param loss: on the first held-out rows, NaN if it is not finite
    :param digest: of the state
    :param good: whether the loss is finite and not above the limit
    :param trouble: why it could not be written to disk, if it could not
    """

    loss: float
    digest: str
    good: bool
    trouble: str = ""


class CheckpointWorker:
    """The parent's side: one request at a time, from any thread.

    >>> worker = CheckpointWorker(spec, bundle, directory.checkpoints_path, directory.last_state_path)  # doctest: +SKIP
    >>> worker.judge(snapshot, limit=8.0).good                                                          # doctest: +SKIP
    True
    """

    def __init__(self, spec: RunSpec, bundle: Path, checkpoints: Path, last_state: Path):
        self._setup = {
            "parent": os.getpid(),
            "spec": spec.model_dump(mode="json"),
            "bundle": str(bundle.resolve()),
            "checkpoints": str(checkpoints.resolve()),
            "last_state": str(last_state.resolve()),
        }
        self.checkpoints = checkpoints
        self.timeout = spec.checkpoints.timeout
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._ready = False

    def begin(self) -> None:
        """Start the child ahead of the first request: it needs seconds to load its libraries."""
        with self._lock:
            self._process = self._spawn()

    @property
    def pid(self) -> int | None:
        """Of the child, if there is one."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def judge(self, snapshot: Snapshot, limit: float, keep: bool = True) -> Verdict:
        """Score a state on a few held-out rows; unless its loss is above `limit`, keep it on disk if `keep`."""
        request = {"do": "judge", "limit": limit, "keep": keep}
        answer = self._ask(request, snapshot, f"the state of step {snapshot.step}")
        return Verdict(**{**answer, "loss": float("nan") if answer["loss"] is None else answer["loss"]})

    def write(
        self,
        snapshot: Snapshot,
        train_loss: float | None,
        run: Mapping[str, Any] | None = None,
        kept: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Evaluate a state on the whole held-out set and write it as a checkpoint.

        :param run: facts for the model card, see `model_card`
        :param kept: of the run besides its state, for the manifest
        """
        request = {
            "do": "write",
            "train_loss": train_loss,
            "run": dict(run or {}),
            "kept": dict(kept or {}),
        }
        answer = self._ask(request, snapshot, f"the checkpoint of step {snapshot.step}")
        checkpoint = read_checkpoint(self.checkpoints / answer["name"])
        if checkpoint is None:
            raise CheckpointFailed(f"checkpoint {answer['name']} cannot be read back")
        return checkpoint

    def close(self) -> None:
        """End the child; what it was writing is removed by the next one."""
        self._closed = True
        process = self._process
        if process is None:
            return
        process.kill()
        process.wait(END_SECONDS)

    def _ask(self, request: dict[str, Any], snapshot: Snapshot, what: str) -> dict[str, Any]:
        with self._lock:
            if self._closed:
                raise CheckpointFailed(f"{what} was given up: the coordinator is ending")
            process = self._process
            if process is None or process.poll() is not None:
                process = self._process = self._spawn()
            if not self._ready:
                self._wait_until_ready(process)
            expired = threading.Event()
            timer = threading.Timer(self.timeout, _kill, (process, expired))
            timer.start()
            try:
                answer = _converse(process, request, snapshot)
            except (OSError, ValueError) as error:
                process.kill()
                process.wait()
                raise CheckpointFailed(
                    f"{what} was given up: {self._reason(process, expired, error)}"
                ) from None
            finally:
                timer.cancel()
        if "error" in answer:
            raise CheckpointFailed(str(answer["error"]))
        return answer

    def _reason(self, process: subprocess.Popen[bytes], expired: threading.Event, error: Exception) -> str:
        if expired.is_set():
            return f"not done within {self.timeout:g} s (checkpoints.timeout), so its process was killed"
        return f"its process ended with code {process.returncode} ({error})"

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._ready = False
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", f"from {CHILD} import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # a signal to the group is for us, also while it is starting
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            stdin, _stdout = _pipes(process)
            stdin.write(json.dumps(self._setup).encode() + b"\n")
            stdin.flush()
        except OSError as error:
            raise CheckpointFailed(
                f"the process for checkpoints could not be started ({error.strerror or error})"
            ) from None
        return process

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        starting = threading.Timer(START_SECONDS, process.kill)
        starting.start()
        try:
            line = _pipes(process)[1].readline()
        finally:
            starting.cancel()
        said = json.loads(line) if line else {}
        if "ready" not in said:
            code = _end(process)
            reason = said.get("error") or f"it ended with code {code}, its last words are in the log"
            raise CheckpointFailed(f"the process for checkpoints did not start: {reason}")
        self._ready = True


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None:
        raise OSError("it has no pipes")
    return process.stdin, process.stdout


def _end(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a child that has closed its pipe, and is killed if it does not end as well."""
    try:
        return process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _converse(
    process: subprocess.Popen[bytes], request: dict[str, Any], snapshot: Snapshot
) -> dict[str, Any]:
    """Send a request with a state and read the answer; an ended child is an OSError or ValueError."""
    head = {**request, "step": snapshot.step, "branch": snapshot.branch}
    stdin, stdout = _pipes(process)
    stdin.write(json.dumps(head).encode() + b"\n")
    for tensor in snapshot.tensors:
        stdin.write(tensor.contiguous().view(-1).numpy().data.cast("B"))
    stdin.flush()
    line = stdout.readline()
    if not line:
        process.wait()
        raise OSError("no answer")
    return json.loads(line)


def _kill(process: subprocess.Popen[bytes], expired: threading.Event) -> None:
    expired.set()
    process.kill()
