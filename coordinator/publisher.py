"""Uploads checkpoints to a repository of a model hub in the background (`checkpoints.publish` of the spec).

A thread of its own with the newest checkpoint only: while an upload fails it is tried again, ever more rarely, and a
newer checkpoint takes the place of an older one. Only a coordinator that ends with its run waits for it (`ending`); one
that is stopped meanwhile uploads the newest checkpoint after its next start. What happens is told as events. The hub's
token and address are those of `huggingface-hub` itself (HF_TOKEN, HF_ENDPOINT).

Weights go to the hub as LFS files over the hub's own address. Its newer way (Xet, where the package hf-xet is
installed) speaks to further hosts and keeps a cache of its own: only where HF_HUB_DISABLE_XET=0 asks for it.
"""

from __future__ import annotations

import logging
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

logger = logging.getLogger(__name__)

UPLOADER = "coordinator.hub_upload"
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 900.0
LONGEST_UPLOAD_SECONDS = 4 * 3600.0

Upload = Callable[[Path, str, str], None]  # folder, repository, commit message


class Publisher:
    """Publishes to one repository; does nothing if its name is empty.

    :param directory: of the run; keeps what was published last, and a copy of what is on its way, for the checkpoint
        itself may be thinned out meanwhile
    :param announce: told of what was published, and of every new reason why it was not
    :param first_pause: seconds before the second attempt; doubled with each
    """

    def __init__(
        self,
        repository: str,
        directory: RunDirectory,
        announce: Announce,
        upload: Upload | None = None,
        first_pause: float = FIRST_PAUSE_SECONDS,
    ):
        self.repository, self.directory, self.announce = repository, directory, announce
        self.upload, self.first_pause = upload or upload_to_hub, first_pause
        self.staging = directory.path / ".publishing"
        self._published = directory.read_published()
        # what waits or is on its way
        self._newest: Checkpoint | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Begin to wait for checkpoints; ends with the process."""
        if self.repository:
            self._thread.start()

    def offer(self, checkpoint: Checkpoint) -> None:
        """Publish this one next, unless it is published already; one that still waits is passed over."""
        if not self.repository:
            return
        with self._changed:
            if checkpoint != self._newest and checkpoint.digest != self._published:
                self._newest = checkpoint
                self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait at most so many seconds until everything is published; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._newest is None, timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None)
                checkpoint = self._newest
            if checkpoint is not None:
                self._publish(checkpoint)

    def _publish(self, checkpoint: Checkpoint) -> None:
        pause, told = self.first_pause, ""
        while self._newest is checkpoint:
            trouble = self._try_once(checkpoint)
            facts = {"step": checkpoint.step, "repository": self.repository, "reason": trouble}
            if not trouble:
                words = f"checkpoint of step {checkpoint.step} uploaded to {self.repository}"
                self.announce(Event("published", words, data=facts))
                self._note_published(checkpoint)
                return
            if trouble != told:
                words = f"checkpoint of step {checkpoint.step} could not be uploaded to {self.repository}"
                self.announce(Event("publish_failed", f"{words}: {trouble}; trying again", data=facts))
                told = trouble
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not checkpoint, pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _note_published(self, checkpoint: Checkpoint) -> None:
        try:
            self.directory.write_published(checkpoint.digest)
        except OSError as error:
            logger.warning("the next start uploads step %d again: %s", checkpoint.step, error)
        with self._changed:
            self._published = checkpoint.digest
            if self._newest is checkpoint:
                self._newest = None
                self._changed.notify_all()

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
