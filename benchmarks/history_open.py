"""How long a browser needs to open the page of a run of 60 days and 500 peers.

    python -m benchmarks.history_open [--days 60] [--peers 500] [--rounds 5]

Writes a made-up history of that length, serves it, and opens the page in Chromium: from the navigation until the chart
of peers is drawn, and until the timeline knows its peers; with the processor time of the page's main thread, what it
received, and how many elements it made. In turns with the page of a run of one hour and ten peers, which costs what any
page costs; and in turns the answers that the page asks for first, as JSON from the history.

Compared with: the goal of 2 s, and the hour. Left out: the network between browser and coordinator.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from benchmarks.interleaved import print_table, time_in_turns
from coordinator.dashboard import DashboardServer, create_app
from coordinator.downsampling import DAY
from coordinator.history import History
from tests.coordinator.long_history import write_long_history
from tests.coordinator.synthetic import SyntheticSwarm

GOAL_SECONDS = 2.0
WAIT_MILLISECONDS = 120_000
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
)
# milliseconds since the navigation began, once it is so
CHART_DRAWN = """() => {
  const canvas = document.querySelector('#peers-chart canvas');
  if (!canvas) return null;
  const left = Math.round(canvas.width * 0.9);
  const colours = new Set(new Uint32Array(canvas.getContext('2d').getImageData(left, 0, 1, canvas.height).data.buffer));
  return colours.size > 3 ? performance.now() : null;
}"""
TIMELINE_DRAWN = (
    """() => /[0-9]/.test(document.getElementById('timeline-note').textContent) ? performance.now() : null"""
)

RECEIVED = "performance.getEntries().reduce((sum, one) => sum + (one.transferSize ?? 0), 0)"


def main() -> None:
    """Write, serve, open, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=float, default=60.0)
    parser.add_argument("--peers", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        now = time.time()
        runs = {
            f"{options.days:g} days, {options.peers} peers": (options.days * DAY, options.peers),
            "an hour, 10 peers": (3600.0, 10),
        }
        served = {
            words: stack.enter_context(served_history(Path(name) / f"{number}.sqlite", *size, now))
            for number, (words, size) in enumerate(runs.items())
        }
        print_table(
            ("history", "MB"), [(words, f"{megabytes:.1f}") for words, (_, _, megabytes) in served.items()]
        )
        print_answers({words: history for words, (_, history, _) in served.items()}, options.rounds)
        if chromium := shutil.which("chromium") or shutil.which("chromium-browser"):
            print_openings(
                {words: address for words, (address, _, _) in served.items()}, chromium, options.rounds
            )
        else:
            print("Chromium is not installed: the page was not opened")


@contextmanager
def served_history(
    path: Path, seconds: float, peers: int, now: float
) -> Iterator[tuple[str, History, float]]:
    """Address of a page, its history, and the size of its file in MB."""
    swarm = SyntheticSwarm(1, peers, now - seconds, seconds)
    history = write_long_history(path, swarm, now)
    status = swarm.status(now)
    server = DashboardServer(create_app(history, lambda: status), "127.0.0.1", 0)
    server.start()
    try:
        yield server.address, history, path.stat().st_size / 1e6
    finally:
        server.stop()
        history.close()


def print_answers(histories: dict[str, History], rounds: int) -> None:
    """Processor time of each question about the whole run."""
    questions: dict[str, Callable[[History], object]] = {
        "counts": lambda history: history.counts(_start(history)),
        "steps": lambda history: history.steps(_start(history)),
        "timeline": lambda history: history.timeline(_start(history)),
        "marks": lambda history: history.event_marks(_start(history)),
        "events": lambda history: history.events(_start(history), limit=100),
        "contributors": lambda history: history.contributors(),
        "checkpoints": lambda history: history.checkpoints(),
    }
    rows = []
    for question, ask in questions.items():
        calls = {words: _call(ask, history) for words, history in histories.items()}
        seconds = time_in_turns(calls, rounds, clock=time.process_time)
        rows.append((question, *(f"{1000 * statistics.median(own):.1f} ms" for own in seconds.values())))
    print_table(("answer, processor time", *histories), rows)


def _call(ask: Callable[[History], object], history: History) -> Callable[[], None]:
    def call() -> None:
        ask(history)

    return call


def _start(history: History) -> float:
    return (history.span() or (0.0, 0.0))[0]


@dataclass(frozen=True)
class Opening:
    """One opening of a page: seconds from the navigation on, and what it took.

    :param chart: until the chart of peers was drawn; `timeline`: until the timeline knew its peers
    :param processor: of the page's main thread until then, which a busy machine changes little
    :param kilobytes: that came over the network; `nodes`: elements in the page
    """

    chart: float
    timeline: float
    processor: float
    kilobytes: float
    nodes: float


def print_openings(addresses: dict[str, str], chromium: str, rounds: int) -> None:
    """Each page in turn in a fresh browser context."""
    from playwright.sync_api import sync_playwright

    seen: dict[str, list[Opening]] = {words: [] for words in addresses}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=list(SWITCHES))
        for index in range(rounds + 1):  # the first one is for warming up
            for words, address in addresses.items():
                opening = _open(browser, address)
                if index:
                    seen[words].append(opening)
        browser.close()
    rows = []
    for words, openings in seen.items():
        median = Opening(*(statistics.median(column) for column in zip(*map(astuple, openings), strict=True)))
        rows.append(
            (
                *(words, f"{median.chart:.2f} s", f"{max(each.chart for each in openings):.2f} s"),
                *(f"{median.timeline:.2f} s", f"{max(each.timeline for each in openings):.2f} s"),
                *(f"{median.processor:.2f} s", f"{median.kilobytes:.0f} kB", f"{median.nodes:.0f}"),
                "met" if max(median.chart, median.timeline) < GOAL_SECONDS else "MISSED",
            )
        )
    header = (
        *("page", "chart, median", "worst", "timeline, median", "worst"),
        *("main thread, CPU", "received", "elements", f"goal {GOAL_SECONDS:g} s"),
    )
    print_table(header, rows)


def _open(browser: Any, address: str) -> Opening:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    try:
        page = context.new_page()
        inspector = context.new_cdp_session(page)
        inspector.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(address, wait_until="commit")
        drawn, known = (
            page.wait_for_function(ready, timeout=WAIT_MILLISECONDS).json_value() / 1000
            for ready in (CHART_DRAWN, TIMELINE_DRAWN)
        )
        figures = {
            each["name"]: each["value"] for each in inspector.send("Performance.getMetrics")["metrics"]
        }
        kilobytes = page.evaluate(RECEIVED) / 1000
        nodes = page.evaluate("document.getElementsByTagName('*').length")
        return Opening(drawn, known, figures["TaskDuration"], kilobytes, nodes)
    finally:
        context.close()


if __name__ == "__main__":
    main()
