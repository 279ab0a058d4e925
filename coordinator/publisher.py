"""Uploads checkpoints to a repository of a model hub in the background (`checkpoints.publish` of the spec).

A thread of its own with the newest checkpoint only: while an upload fails it is tried again, ever more rarely, and a
newer checkpoint takes the place of an older one. Nothing waits for it; what happens is told as events. The hub's token
and address are those of `huggingface-hub` itself (HF_TOKEN, HF_ENDPOINT).
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from coordinator.checkpoints import Checkpoint
from coordinator.export import export_checkpoint
from coordinator.run_directory import RunDirectory
from swarm.errors import ArtelError
from swarm.spec import RunSpec

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 900.0

Upload = Callable[[Path, str, str], None]  # folder, repository, commit message


class Publisher:
    """Publishes to one repository; does nothing if its name is empty.

    :param staging: folder for what is on its way; the checkpoint itself may be thinned out meanwhile
    :param announce: told in a sentence of what was published, and of every new reason why it was not
    :param first_pause: seconds before the second attempt; doubled with each
    """

    def __init__(
        self,
        repository: str,
        staging: Path,
        announce: Callable[[str, str], None],
        upload: Upload | None = None,
        first_pause: float = FIRST_PAUSE_SECONDS,
    ):
        self.repository, self.staging, self.announce = repository, staging, announce
        self.upload, self.first_pause = upload or upload_to_hub, first_pause
        self._newest: Checkpoint | None = None
        self._offered = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    @classmethod
    def of(cls, spec: RunSpec, directory: RunDirectory, announce: Callable[[str, str], None]) -> Publisher:
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
            if not trouble:
                self.announce(
                    "published", f"checkpoint of step {checkpoint.step} uploaded to {self.repository}"
                )
                return
            if trouble != told:
                words = f"checkpoint of step {checkpoint.step} could not be uploaded to {self.repository}"
                self.announce("publish_failed", f"{words}: {trouble}; trying again")
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
        except Exception as error:  # the network's, the hub's and its library's errors have no common base
            return " ".join(f"{type(error).__name__}: {error}".split())[:300]
        finally:
            shutil.rmtree(self.staging, ignore_errors=True)
        return ""


def upload_to_hub(folder: Path, repository: str, message: str) -> None:
    """Make the folder the content of a model repository, which is made if it is not there."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    started = time.monotonic()
    api.create_repo(repository, exist_ok=True, private=False)
    api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    logger.info("uploaded %s in %.0f s", message, time.monotonic() - started)
