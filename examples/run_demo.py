"""`make demo`: one coordinator and two peers on this machine, for real, until the run is finished.

Starts `coordinator run examples/demo.toml` and two `peer join` processes on loopback, shows progress, and ends with
the losses of the first and last checkpoint and five sentences filled in by the model. Whatever way it ends, it ends
every process that it started.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from transformers import PreTrainedTokenizerBase, pipeline
from transformers.utils import logging

SPEC = Path(__file__).with_name("demo.toml")
PEERS = 2
PREPARATION_SECONDS = 900.0
STALL_SECONDS = 180.0
END_SECONDS = 15.0
CANDIDATES = 200
WORDS_SHOWN = 5
SENTENCES = (
    "Москва — столица [MASK].",
    "Он посмотрел на [MASK] и улыбнулся.",
    "Мы пошли в [MASK].",
    "На столе стоит [MASK].",
    "Она [MASK] не видела моря.",
)


class DemoFailed(Exception):
    """The demo cannot go on; the message says why, and where to look."""


def main() -> int:
    """Run the demo; the exit code is 0 if the run was finished."""
    console = Console()
    # SIGTERM ends the demo as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_dir = Path(tempfile.mkdtemp(prefix="artel-demo-")) / "run"
    try:
        with processes(run_dir) as started:
            train(console, run_dir, started)
    except KeyboardInterrupt:
        console.print("interrupted; all processes have ended")
        return 130
    except DemoFailed as error:
        console.print(f"error: {error}", style="red", soft_wrap=True)
        return 1
    report(console, run_dir)
    return 0


@contextlib.contextmanager
def processes(run_dir: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A list to add started processes to; all of them have ended when the block is left."""
    started: list[subprocess.Popen[bytes]] = []
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield started
    finally:
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + END_SECONDS
        for process in started:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def train(console: Console, run_dir: Path, started: list[subprocess.Popen[bytes]]) -> None:
    """Start everything, show progress until the run is finished."""
    command = ["coordinator", "run", str(SPEC), "--run-dir", str(run_dir), "--exit-when-finished"]
    loopback = ["--host-maddrs", "/ip4/127.0.0.1/tcp/0", "--dashboard", "127.0.0.1:0"]
    started.append(start([*command, *loopback], run_dir.parent / "coordinator.log"))
    console.print(
        "[bold]coordinator run examples/demo.toml[/]: preparing text and tokenizer, first checkpoint …"
    )
    join_line = wait_for_join_line(console, run_dir, started)
    console.print(f"dashboard: [bold]{dashboard_address(run_dir)}[/]")
    console.print(f"two peers, each started by: [bold]{join_line}[/]", soft_wrap=True)
    for number in range(PEERS):
        arguments = [*shlex.split(join_line), "--cache-dir", str(run_dir.parent / "cache"), "--device", "cpu"]
        started.append(start(arguments, run_dir.parent / f"peer-{number}.log"))
    show_progress(console, run_dir, started)


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start one of our commands in a session of its own, its output in a file."""
    command = [str(Path(sys.executable).parent / arguments[0]), *arguments[1:]]
    threads = str(max(1, (os.cpu_count() or 2) // PEERS))
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )


def wait_for_join_line(console: Console, run_dir: Path, started: list[subprocess.Popen[bytes]]) -> str:
    """The line that the coordinator hands out, once it is ready; meanwhile what it says it is doing."""
    deadline = time.monotonic() + PREPARATION_SECONDS
    path = run_dir / "join.txt"
    with console.status("starting") as doing:
        while not (path.exists() and status_of(run_dir)):
            require_alive(run_dir, started)
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"the coordinator was not ready in {PREPARATION_SECONDS:.0f} s, see {run_dir.parent}"
                )
            if words := last_line(run_dir.parent / "coordinator.log"):
                doing.update(words)
            time.sleep(0.2)
    return path.read_text().strip()


def last_line(log: Path) -> str:
    """What a process said last."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def show_progress(console: Console, run_dir: Path, started: list[subprocess.Popen[bytes]]) -> None:
    """A bar of global steps with losses, until the coordinator has ended after the last one."""
    columns = (
        TextColumn("step"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    facts = TextColumn("{task.fields[facts]}")
    last_step, moved = 0, time.monotonic()
    with Progress(*columns, facts, console=console) as progress:
        task = progress.add_task("steps", total=None, facts="waiting for peers")
        while started[0].poll() is None:
            status = status_of(run_dir)
            if status:
                progress.update(
                    task,
                    completed=status["global_step"],
                    total=status["target_steps"],
                    facts=describe(status),
                )
                if status["global_step"] > last_step:
                    last_step, moved = status["global_step"], time.monotonic()
            if time.monotonic() - moved > STALL_SECONDS:
                raise DemoFailed(
                    f"no global step for {STALL_SECONDS:.0f} s, see the logs in {run_dir.parent}"
                )
            if not (status and status["global_step"] >= status["target_steps"]):
                require_alive(run_dir, started)
            time.sleep(0.5)
    if started[0].returncode != 0:
        require_alive(run_dir, started)


def describe(status: dict) -> str:
    """The moving figures beside the bar."""
    losses = f"loss {number(status['train_loss'])}, held-out {number(status['heldout_loss'])}"
    return f"{status['peers_online']} peers, {status['samples_per_second']:.0f} samples/s, {losses}"


def require_alive(run_dir: Path, started: list[subprocess.Popen[bytes]]) -> None:
    """Raise with the last words of a process that has ended with an error."""
    for process in started:
        if process.poll() not in (None, 0):
            name = " ".join(process.args[:2]) if isinstance(process.args, list) else str(process.args)
            logs = "; ".join(
                f"{path.name}: {last_line(path)}" for path in sorted(run_dir.parent.glob("*.log"))
            )
            raise DemoFailed(f"{Path(name).name} ended with code {process.returncode}. {logs}")


def status_of(run_dir: Path) -> dict | None:
    """What `coordinator status --json` would print, if there is something yet."""
    try:
        return json.loads((run_dir / "status.json").read_bytes())
    except FileNotFoundError:
        return None


def dashboard_address(run_dir: Path) -> str:
    """Where the coordinator's page is."""
    return (run_dir / "dashboard.txt").read_text().strip()


def report(console: Console, run_dir: Path) -> None:
    """Losses at the first and last checkpoint, and what the model fills in."""
    status = status_of(run_dir)
    if not status or len(status["checkpoints"]) < 2:
        raise DemoFailed(f"the run left no two checkpoints in {run_dir}")
    first, last = status["checkpoints"][0], status["checkpoints"][-1]
    table = Table("checkpoint", "training loss", "held-out loss", title="What the swarm learnt")
    for checkpoint in (first, last):
        manifest = json.loads((run_dir / checkpoint["path"] / "manifest.json").read_bytes())
        table.add_row(
            f"step {checkpoint['step']}", number(manifest["train_loss"]), number(manifest["heldout_loss"])
        )
    console.print(table)
    console.print("Words that the model puts in place of [MASK], best first:", markup=False)
    for sentence, words in fill_in(run_dir / last["path"]):
        console.print(f"  {sentence}  →  {', '.join(words)}", markup=False, soft_wrap=True)
    console.print(f"last checkpoint: [bold]{run_dir / last['path']}[/]", soft_wrap=True)


def fill_in(checkpoint: Path) -> Iterator[tuple[str, list[str]]]:
    """Each sentence with the model's best words, from an ordinary Hugging Face pipeline."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    fill = pipeline("fill-mask", model=str(checkpoint), trust_remote_code=True, device="cpu")
    for sentence in SENTENCES:
        yield sentence, whole_words(fill(sentence, top_k=CANDIDATES), fill.tokenizer)[:WORDS_SHOWN]


def whole_words(answers: list[dict], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The candidates that begin a word; pieces that only continue one say little to a reader."""
    pieces = [tokenizer.convert_ids_to_tokens(answer["token"]) for answer in answers]
    return [piece[1:] for piece in pieces if piece.startswith("▁") and piece[1:].isalpha()]


def number(value: float | None) -> str:
    """A loss for people; the first checkpoint has no training loss."""
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
