"""The run at a moment of its past, in a terminal, and answers shared by many pages."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from coordinator.answers import Answers
from coordinator.history import History
from coordinator.replay import status_at
from coordinator.status import CheckpointStatus
from coordinator.terminal_view import sparkline, view
from tests.coordinator.runs import T0, peer, run_status


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "history.sqlite")
    for second in range(100):
        peers = [peer(1, samples=second)]
        if second >= 50:
            peers.append(peer(2, "syncing" if second < 60 else "training"))
        history.record_status(
            run_status(*peers, global_step=second // 10, samples_total=64 * second), T0 + second
        )
        if second % 10 == 9:
            history.record_step(second // 10 + 1, T0 + second, 9.0 - second / 10, 64, len(peers))
    history.record_checkpoint(5, "checkpoints/step-00000005", 4.5, "sha256:ab", T0 + 55)
    yield history
    history.close()


def test_a_moment_of_the_past_is_put_together_again(history: History) -> None:
    last = run_status(target_steps=10)
    early, late = (status_at(history.path, T0 + t, last) for t in (30.5, 55.5))
    assert [p.name for p in early.peers] == ["otter-1"]
    assert [(p.name, p.state) for p in late.peers] == [("otter-1", "training"), ("otter-2", "syncing")]
    assert (early.global_step, late.global_step) == (3, 5)
    assert early.samples_total == 64 * 30
    assert early.train_loss == pytest.approx(9.0 - 2.9)
    assert early.checkpoints == []
    assert late.heldout_loss == 4.5
    assert late.join_line == last.join_line
    assert late.target_steps == 10


def test_a_moment_without_records_says_so(history: History) -> None:
    before = status_at(history.path, T0 - 1000, run_status())
    assert before.peers == []
    assert before.reason == "nothing was recorded at this moment"


def text_of(renderable: object, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def test_terminal_shows_the_essentials_in_80_columns(history: History) -> None:
    status = run_status(
        peer(1, samples=1234, hardware="NVIDIA GeForce RTX 4090 Laptop GPU"),
        peer(2, "lost", name="[bold]not markup[/bold]"),
        generated_at=T0,
        target_steps=10,
        train_loss=5.25,
        checkpoints=[CheckpointStatus(step=5, path="checkpoints/step-00000005")],
    )
    text = text_of(view(status, history.counts(T0), now=T0 + 1))
    assert max(len(line) for line in text.splitlines()) <= 80
    for words in ("test", "training", "otter-1", "1,234", "5.250", "step 5", "peers over time", "[bold]not"):
        assert words in text
    assert "does not answer" not in text


def test_terminal_says_when_the_status_is_old_and_sums_up_many_peers() -> None:
    status = run_status(*(peer(n) for n in range(50)), generated_at=T0)
    text = text_of(view(status, rows=5, now=T0 + 90))
    assert "This is 1 min 30 s old" in text
    assert "and 45 more" in text


def test_sparkline_scales_and_leaves_gaps() -> None:
    assert sparkline([0, None, 7, 14], width=10) == "▁ ▅█"
    assert sparkline([1, 2, 3, 4], width=2) == "▆█"
    assert sparkline([], width=5) == ""


def test_a_question_of_many_is_computed_once_and_kept_for_a_moment() -> None:
    now = [0.0]
    answers = Answers(seconds=2.0, clock=lambda: now[0])
    computed: list[int] = []
    begun = threading.Event()

    def compute() -> dict:
        computed.append(1)
        begun.wait()
        return {"n": len(computed)}

    bodies: list[bytes] = []
    threads = [threading.Thread(target=lambda: bodies.append(answers.get("q", compute))) for _ in range(8)]
    for thread in threads:
        thread.start()
    begun.set()
    for thread in threads:
        thread.join()
    assert bodies == [b'{"n":1}'] * 8
    now[0] = 3.0
    assert answers.get("q", compute) == b'{"n":2}'


def test_a_failed_answer_is_not_kept() -> None:
    answers = Answers(seconds=60.0)

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        answers.get("q", fail)
    assert answers.get("q", lambda: 1) == b"1"
