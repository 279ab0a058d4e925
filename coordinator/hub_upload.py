"""The process in which `publisher` uploads: PARENT_PID FOLDER REPOSITORY MESSAGE; dies with its parent.

A process of its own because an upload that hangs can then be ended, and because this library reads its settings from
the environment when it is imported.
"""

from __future__ import annotations

import os
import sys

from swarm.lifeline import die_with_parent, ignore_polite_signals


def main() -> None:
    """Make the folder the content of a model repository; on failure the hub's words are on stderr."""
    parent, folder, repository, message = sys.argv[1:]
    die_with_parent(int(parent))
    ignore_polite_signals()
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    except Exception as error:  # the network's, the hub's and its library's errors have no common base
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)
