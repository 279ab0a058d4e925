"""Uploads checkpoints to a repository of a model hub in the background (`checkpoints.publish` of the spec).

A thread of its own with the newest checkpoint only: while an upload fails it is tried again, ever more rarely, and a
newer checkpoint takes the place of an older one. Nothing waits for it; what happens is told as events. The hub's token
and address are those of `huggingface-hub` itself (HF_TOKEN, HF_ENDPOINT).

Weights go to the hub as LFS files over the hub's own address. Its newer way (Xet, where the package hf-xet is
installed) speaks to further hosts and keeps a cache of its own: only where HF_HUB_DISABLE_XET=0 asks for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from coordinator.checkpoints import Checkpoint
from coordinator.events import Announce, Event
from coordinator.export import export_checkpoint
from coordinator.run_directory import RunDirectory
from swarm.errors import ArtelError, OperationFailed
from swarm.spec import RunSpec

UPLOADER = "coordinator.hub_upload"
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 900.0
LONGEST_UPLOAD_SECONDS = 4 * 3600.0

Upload = Callable[[Path, str, str], None]  # folder, repository, commit message


class Publisher:
    """Publishes to one repository; does nothing if its name is empty.

    :param staging: folder for what is on its way; the checkpoint itself may be thinned out meanwhile
    :param announce: told of what was published, and of every new reason why it was not
    :param first_pause: seconds before the second attempt; doubled with each
    """

    def __init__(
        self,
        repository: str,
        staging: Path,
        announce: Announce,
        upload: Upload | None = None,
        first_pause: float = FIRST_PAUSE_SECONDS,
    ):
        self.repository, self.staging, self.announce = repository, staging, announce
        self.upload, self.first_pause = upload or upload_to_hub, first_pause
        self._newest: Checkpoint | None = None
        self._offered = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    @classmethod
    def of(cls, spec: RunSpec, directory: RunDirectory, announce: Announce) -> Publisher:
        """The publisher that a run's spec asks for."""
        return cls(spec.checkpoints.publish, directory.path / ".publishing", announce)

    def start(self) -> None:
        """Begin to wait for checkpoints; ends with the process."""
        if self.repository:
            self._thread.start()

    def offer(self, checkpoint: Checkpoint) -> None:
        """Publish this one next; one that still waits is passed over."""
        self._newest = checkpoint
        self._offered.set()

    def _run(self) -> None:
        while True:
            self._offered.wait()
            self._offered.clear()
            checkpoint = self._newest
            if checkpoint is not None:
                self._publish(checkpoint)

    def _publish(self, checkpoint: Checkpoint) -> None:
        pause, told = self.first_pause, ""
        while not self._offered.is_set():
            trouble = self._try_once(checkpoint)
            facts = {"step": checkpoint.step, "repository": self.repository, "reason": trouble}
            if not trouble:
                words = f"checkpoint of step {checkpoint.step} uploaded to {self.repository}"
                self.announce(Event("published", words, data=facts))
                return
            if trouble != told:
                words = f"checkpoint of step {checkpoint.step} could not be uploaded to {self.repository}"
                self.announce(Event("publish_failed", f"{words}: {trouble}; trying again", data=facts))
                told = trouble
            self._offered.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _try_once(self, checkpoint: Checkpoint) -> str:
        """Stage and upload; what went wrong, or nothing."""
        try:
            shutil.rmtree(self.staging, ignore_errors=True)
            export_checkpoint(checkpoint, self.staging, link=True)
            self.upload(self.staging, self.repository, f"step {checkpoint.step}")
        except ArtelError as error:
            return str(error)
        except OSError as error:
            return str(error)
        finally:
            shutil.rmtree(self.staging, ignore_errors=True)
        return ""


def upload_to_hub(folder: Path, repository: str, message: str) -> None:
    """Make the folder the content of a model repository, in a process that is ended when it takes too long.

    :raises OperationFailed: in the hub's words
    """
    arguments = [str(os.getpid()), str(folder), repository, message]
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"from {UPLOADER} import main; main()", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST_UPLOAD_SECONDS,
            env={
                "HF_HUB_DISABLE_XET": "1",
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OperationFailed(f"not done within {LONGEST_UPLOAD_SECONDS / 3600:g} h") from None
    if done.returncode:
        raise OperationFailed(" ".join(done.stderr.split())[-300:] or f"exit code {done.returncode}")
