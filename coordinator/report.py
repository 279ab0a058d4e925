"""What can be seen of a run, from its directory or over its control API: `coordinator status`, `watch`, `replay`."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError
from rich.live import Live

from coordinator import control_pb2
from coordinator.control_client import ControlClient
from coordinator.control_messages import status_of
from coordinator.dashboard import DashboardServer, create_replay_app
from coordinator.history_reader import HistoryReader
from coordinator.host_port import parse_host_port
from coordinator.run_directory import RunDirectory
from coordinator.status import CheckpointStatus, PeerStatus, RunStatus
from coordinator.terminal_view import view
from coordinator.unreadable import why_unreadable
from data_prep.counted import counted
from swarm.errors import OperationFailed

OLD_AFTER_SECONDS = 15.0
WATCH_SECONDS = 1.0
WATCHED_HISTORY_SECONDS = 3600.0


def read_status(run_dir: Path) -> RunStatus:
    """The status in a run directory; raises `OperationFailed` if none can be read."""
    path = RunDirectory(run_dir).status_path
    try:
        return RunStatus.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise OperationFailed(
            f"{run_dir} has no status yet: start `coordinator run`, or wait a moment"
        ) from None
    except (OSError, ValidationError) as error:
        raise OperationFailed(
            f"{path} cannot be read ({why_unreadable(error)}): a coordinator that runs writes it anew, so wait a "
            "moment, or start `coordinator run`"
        ) from None


def describe(status: RunStatus) -> str:
    """The status in a few lines for a person."""
    age = time.time() - status.generated_at
    lines = [
        f"{status.run_id}: {status.state}" + (f" ({status.reason})" if status.reason else ""),
        f"step {status.global_step} of {status.target_steps}, {counted(status.peers_online, 'peer')}, "
        f"{status.samples_per_second:.1f} samples/s, goodput {_number(status.goodput)}",
        f"loss {_number(status.train_loss)}, held-out {_number(status.heldout_loss)}",
    ]
    lines += [describe_peer(peer) for peer in status.peers]
    if status.split:
        lines.append("The swarm has split: some peers train apart from the others until they reload.")
    if age > OLD_AFTER_SECONDS:
        lines.append(f"This is {age:.0f} s old: the coordinator does not run, or cannot write it.")
    return "\n".join(lines)


def describe_peer(peer: PeerStatus) -> str:
    """A peer in one line."""
    words = [
        f"  {peer.name:<14} {peer.state:<10} step {peer.global_step}, {peer.samples_per_second:.1f} samples/s",
        counted(peer.samples_contributed, "sample"),
        f"goodput {_number(peer.goodput)}, heard {peer.last_seen:.0f} s ago",
        peer.trouble,
        peer.error or "",
    ]
    return ", ".join(word for word in words if word)


def describe_checkpoint(checkpoint: CheckpointStatus) -> str:
    """A checkpoint in one line."""
    accuracy = checkpoint.heldout_accuracy
    words = [
        f"step {checkpoint.step}: {checkpoint.path}",
        f"held-out loss {_number(checkpoint.heldout_loss)}",
        "" if accuracy is None else f"accuracy {accuracy:.1%}",
        checkpoint.digest,
    ]
    return ", ".join(word for word in words if word)


def watch_run(run_dir: Path) -> None:
    """Draw the run in the terminal again and again, until Ctrl-C or SIGTERM."""
    history = HistoryReader(RunDirectory(run_dir).history_path)
    with _screen() as live:
        while True:
            counts = history.counts(start=time.time() - WATCHED_HISTORY_SECONDS)
            live.update(view(read_status(run_dir), counts), refresh=True)
            time.sleep(WATCH_SECONDS)


@contextlib.contextmanager
def _screen() -> Iterator[Live]:
    """The whole terminal until the process is told to end; then it is as it was before."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), Live(auto_refresh=False, screen=True) as live:
        yield live


def watch_control(client: ControlClient) -> None:
    """The same over the control API of a run elsewhere."""
    with _screen() as live:
        for message in client.stream(lambda api, **how: api.Watch(control_pb2.WatchRequest(), **how)):
            live.update(view(status_of(message)), refresh=True)


def status_over_control(client: ControlClient) -> RunStatus:
    """The status of a run elsewhere."""
    return status_of(client.call(lambda api, **how: api.GetRun(control_pb2.GetRunRequest(), **how)))


def replay_run(run_dir: Path, dashboard: str, say: Callable[[str], None]) -> None:
    """Serve the page over a run's history, until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    history = HistoryReader(RunDirectory(run_dir).history_path)
    server = DashboardServer(create_replay_app(history), *parse_host_port(dashboard))
    server.start()
    say(f"replay of {run_dir} at {server.address}")
    try:
        signal.pause()
    except KeyboardInterrupt:
        server.stop()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
