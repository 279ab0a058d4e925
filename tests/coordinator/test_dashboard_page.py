"""The page in a real browser: what a visitor sees, clicks and copies. Skipped where there is no Chromium."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.dashboard import DashboardServer, create_app, create_replay_app
from coordinator.history import History
from coordinator.history_reader import HistoryReader
from coordinator.status import PeerStatus, RunStatus
from tests.coordinator.long_history import write_long_history
from tests.coordinator.runs import peer, run_status
from tests.coordinator.synthetic import SyntheticSwarm

playwright = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("the page's tests need Chromium (apt-get install chromium)", allow_module_level=True)

expect = playwright.expect
SWITCHES = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
QUIET = "--disable-component-update --disable-sync"


class Stage:
    """A run whose peers the test moves; every move is recorded and shown at once."""

    def __init__(self, directory: Path) -> None:
        self.history = History(directory / "history.sqlite")
        self.peers: dict[int, PeerStatus] = {}
        self.more: dict[str, Any] = {}
        self.status = run_status(started_at=time.time())
        self.server = DashboardServer(create_app(self.history, self._now), "127.0.0.1", 0)

    def move(self, *peers: PeerStatus, gone: tuple[int, ...] = (), **more: Any) -> None:
        for moved in peers:
            self.peers[int(moved.name.split("-")[1])] = moved
        for number in gone:
            del self.peers[number]
        self.more.update(more)
        self.history.record_status(self._now(), time.time())

    def _now(self) -> RunStatus:
        return run_status(*self.peers.values(), generated_at=time.time(), **self.more)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    stage.move()
    stage.server.start()
    yield stage
    stage.server.stop()
    stage.history.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    expect.set_options(timeout=30_000)  # a busy machine opens a page in ten
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=f"{SWITCHES} {QUIET}".split())
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page in English that fails the test on any console error or request to another host."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    page = context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    page.on("console", lambda m: troubles.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("request", lambda r: None if "//127.0.0.1:" in r.url else troubles.append(f"request: {r.url}"))
    page.expected_troubles = ["ERR_CONNECTION"]
    yield page
    context.close()
    assert not [
        trouble for trouble in troubles if not any(words in trouble for words in page.expected_troubles)
    ]


def figure(page: Any, title: str) -> Any:
    return page.locator(".tile").filter(has_text=title)


def pixels(page: Any, state: str) -> int:
    """How many pixels of the peers' chart have the colour of a state."""
    return page.evaluate(
        """(state) => {
          const probe = document.createElement('canvas').getContext('2d');
          probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--' + state);
          probe.fillRect(0, 0, 1, 1);
          const wanted = probe.getImageData(0, 0, 1, 1).data;
          const canvas = document.querySelector('#peers-chart canvas');
          const top = Math.round(60 * devicePixelRatio);
          const seen = canvas.getContext('2d').getImageData(0, top, canvas.width, canvas.height - top).data;
          let count = 0;
          for (let i = 0; i < seen.length; i += 4) {
            if ([0, 1, 2].every((k) => Math.abs(seen[i + k] - wanted[k]) < 6)) count += 1;
          }
          return count;
        }""",
        state,
    )


def wait_for(condition: Any, page: Any, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the page did not get there in time"
        page.wait_for_timeout(100)


def test_a_peer_that_joins_and_one_that_is_killed_are_seen(stage: Stage, page: Any) -> None:
    stage.move(peer(1))
    page.goto(stage.server.address)
    expect(figure(page, "Peers now").locator("dd")).to_have_text("1")
    wait_for(lambda: pixels(page, "training") > 0, page)
    assert pixels(page, "lost") == 0

    stage.move(peer(2, "syncing"))
    expect(figure(page, "Peers now").locator("dd")).to_have_text("2", timeout=3000)
    wait_for(lambda: pixels(page, "syncing") > 0, page)
    row = page.locator("#peers tbody tr").filter(has_text="otter-2")
    expect(row).to_contain_text("syncing")

    stage.move(peer(2, "lost"))
    expect(figure(page, "Peers now").locator("dd")).to_have_text("1", timeout=3000)
    expect(row).to_contain_text("lost")
    wait_for(lambda: pixels(page, "lost") > 0, page)
    expect(page.locator("#events")).to_contain_text("otter-2 fell silent without leaving", timeout=10000)


def test_table_sorts_and_filters_also_by_keyboard(stage: Stage, page: Any) -> None:
    stage.move(
        peer(1, samples=50, samples_per_second=30.0),
        peer(2, samples=10, samples_per_second=90.0),
        peer(3, "stalled", samples=99, samples_per_second=1.0, error="no group for 3 rounds"),
    )
    page.goto(stage.server.address)
    names = page.locator("#peers tbody tr td:first-child")
    expect(names).to_contain_text(["otter-3", "otter-1", "otter-2"])
    speed = page.get_by_role("button", name="Samples/s", exact=True)
    speed.focus()
    page.keyboard.press("Enter")
    expect(names).to_contain_text(["otter-2", "otter-1", "otter-3"])
    expect(page.locator("th[aria-sort]")).to_have_text("Samples/s")
    page.keyboard.press("Enter")
    expect(names).to_contain_text(["otter-3", "otter-1", "otter-2"])
    page.locator("#filter").fill("STALLED group")
    expect(names).to_have_count(1)
    expect(page.locator("#peers td.error").first).to_have_text("no group for 3 rounds")
    page.locator("#filter").fill("nobody")
    expect(page.locator("#peers tbody")).to_contain_text("No peer matches")


def test_stale_banner_comes_and_goes_with_the_server(stage: Stage, page: Any) -> None:
    stage.move(peer(1))
    page.goto(stage.server.address)
    expect(figure(page, "Peers now").locator("dd")).to_have_text("1")
    expect(page.locator("#stale")).to_be_hidden()
    port = int(stage.server.address.rsplit(":", 1)[1])
    stage.server.stop()
    expect(page.locator("#stale")).to_be_visible(timeout=12000)
    expect(page.locator("#stale")).to_contain_text("No news from the coordinator")
    stage.server = DashboardServer(create_app(stage.history, stage._now), "127.0.0.1", port)
    stage.server.start()
    expect(page.locator("#stale")).to_be_hidden(timeout=20000)


def test_a_history_that_cannot_be_read_is_said(stage: Stage, page: Any) -> None:
    page.expected_troubles.append("status of 503")  # the browser reports every failed request, as it should
    page.goto(stage.server.address)
    expect(page.locator("#warning")).to_be_hidden()
    stage.history.path.rename(stage.history.path.with_suffix(".away"))
    expect(page.locator("#warning")).to_contain_text("there is no history at", timeout=12000)


def test_copy_button_copies_the_join_line(stage: Stage, page: Any) -> None:
    stage.move(peer(1))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(stage.server.address)
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == stage.status.join_line


def test_names_of_peers_are_text_and_nothing_else(stage: Stage, page: Any) -> None:
    stage.move(peer(1, name="<img src=x onerror=alert(1)>-1", error="<script>alert(1)</script>"))
    page.goto(stage.server.address)
    expect(page.locator("#peers tbody")).to_contain_text("<img src=x")
    assert page.locator("#peers img, #events img, #peers script").count() == 0


def test_russian_and_english_dark_and_light(stage: Stage, page: Any) -> None:
    stage.move(peer(1), split=True)
    page.goto(f"{stage.server.address}?lang=ru")
    expect(page.locator("h1")).to_contain_text("Артель")
    expect(page.locator("html")).to_have_attribute("lang", "ru")
    expect(page.locator("#peers tbody")).to_contain_text("обучает")
    expect(page.locator("#events")).to_contain_text("otter-1 входит")
    expect(page.locator("#warning")).to_contain_text("Рой разделился")
    left = page.evaluate("document.body.innerText").replace("Artel", "")
    assert not re.search(r"undefined|NaN|\[object", left)
    page.locator("#language").click()
    expect(page.locator("#peers tbody")).to_contain_text("training")
    theme = page.locator("html").get_attribute("data-theme")
    page.locator("#theme").click()
    expect(page.locator("html")).not_to_have_attribute("data-theme", theme)


OPERATORS_EVENTS = {
    "refused": {"donor": "12D3KooWotter", "why": "loss", "step": 7, "loss": 9.5, "limit": 6.0},
    "checkpoint_failed": {"reason": "диск полон"},
    "state_not_judged": {"reason": "время вышло"},
    "state_not_kept": {"reason": "диск полон"},
    "settings": {"from_step": 12, "changes": "target_batch_size = 512"},
    "paused": {"from_step": 14},
    "resumed": {"from_step": 14},
    "finishing": {"from_step": 20},
    "published": {"step": 20, "repository": "team/lean"},
    "publish_failed": {"step": 20, "repository": "team/lean", "reason": "сети нет"},
}


def test_what_the_operator_does_is_told_in_russian_as_well(stage: Stage, page: Any) -> None:
    for kind, data in OPERATORS_EVENTS.items():
        stage.history.record_event(kind, f"English {kind}", time.time(), data=data)
    for why in ("unfit", "behind", "ahead", "not_finite"):
        data = {"donor": "12D3KooWotter", "why": why, "step": 7, "reason": "тензор 3"}
        stage.history.record_event("refused", "English", time.time(), data=data)
    stage.move(peer(1), state="waiting", reason="paused by the operator", paused=True)
    page.goto(f"{stage.server.address}?lang=ru")
    expect(page.locator("#run-state")).to_contain_text("Пауза, её включил организатор")
    expect(page.locator("#events")).to_contain_text("С шага 14 запуск на паузе")
    told = page.locator("#events").inner_text()
    assert "English" not in told
    assert not re.search(r"undefined|NaN|\{", told)
    assert "потери на отложенных 9,500 при пределе 6,000" in told or "9.500 при пределе 6.000" in told
    stage.move(peer(1), state="stalled", reason="no global step for 75 s", paused=False)
    expect(page.locator("#run-state")).to_contain_text("глобального шага нет уже 75 с", timeout=5000)


def test_every_english_word_has_a_russian_one(stage: Stage, page: Any) -> None:
    page.goto(stage.server.address)
    load = "async (name) => Object.keys(Object.values(await import(`/static/js/words_${name}.js`))[0])"
    english, russian = (set(page.evaluate(load, name)) for name in ("en", "ru"))
    assert english - russian == set()
    assert {word.split("_")[0] for word in russian - english} == {"event", "reason"}


def test_a_finished_run_asks_for_nobody(stage: Stage, page: Any) -> None:
    stage.move(peer(1), global_step=20, target_steps=20)
    page.goto(stage.server.address)
    expect(page.locator("#join")).to_be_visible()
    expect(page.locator("#batch")).to_be_visible()
    stage.move(gone=(1,), state="finished", global_step=20, target_steps=20)
    expect(figure(page, "Time to finish").locator("dd")).to_have_text("Finished")
    expect(page.locator("#join")).to_be_hidden()
    expect(page.locator("#batch")).to_be_hidden()
    expect(page.locator("#peers tbody")).to_contain_text("Nobody is here any more")


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_nothing_sticks_out_sideways(stage: Stage, page: Any, width: int) -> None:
    stage.move(*(peer(n, hardware="NVIDIA GeForce RTX 4090 Laptop GPU") for n in range(1, 9)))
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{stage.server.address}?lang=ru")
    expect(page.locator("#peers tbody tr")).to_have_count(8)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hundreds_of_peers_have_rows_only_down_to_where_somebody_looks(stage: Stage, page: Any) -> None:
    stage.move(*(peer(n, samples=1000 - n) for n in range(1, 301)))
    page.goto(stage.server.address)
    expect(page.locator("#table-note")).to_have_text("300 of 300")
    count = "document.querySelectorAll('#peers tbody tr:not(.rest)').length"
    assert page.evaluate(count) < 100
    scroller = page.locator("#peers").locator("..")
    height = "(element) => element.scrollHeight"
    before = scroller.evaluate(height)
    scroller.evaluate("(element) => element.scrollTo(0, element.scrollHeight)")
    wait_for(lambda: page.evaluate(count) == 300, page)
    expect(page.locator("#peers tbody tr").last).to_contain_text("otter-300")
    assert abs(scroller.evaluate(height) - before) < 200
    page.locator("#filter").fill("otter-299")
    expect(page.locator("#peers tbody tr")).to_have_count(1)


def test_ranges_and_zoom(stage: Stage, page: Any) -> None:
    stage.move(peer(1))
    page.goto(stage.server.address)
    expect(page.locator("#ranges button[aria-pressed=true]")).to_have_text("Whole run")
    page.get_by_role("button", name="5 min").click()
    expect(page.locator("#ranges button[aria-pressed=true]")).to_have_text("5 min")
    box = page.locator("#peers-chart .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60, steps=5)
    page.mouse.up()
    expect(page.locator("#ranges button[aria-pressed=true]")).to_have_text("Zoomed")


def test_replay_of_a_finished_run(tmp_path: Path, page: Any) -> None:
    start = time.time() - 7200
    swarm = SyntheticSwarm(5, 12, start, 7200)
    write_long_history(tmp_path / "history.sqlite", swarm, start + 7200).close()
    reader = HistoryReader(tmp_path / "history.sqlite")
    server = DashboardServer(create_replay_app(reader), "127.0.0.1", 0)
    server.start()
    try:
        page.goto(server.address)
        slider = page.get_by_role("slider", name="Replay")
        expect(slider).to_be_visible()
        expect(page.locator("#stale")).to_be_hidden()
        slider.fill("300")
        t = start + 0.3 * (7200)
        there = sum(state not in (None, "lost", "leaving") for state in (p.state(t) for p in swarm.peers))
        expect(figure(page, "Peers now").locator("dd")).to_have_text(str(there))
        expect(page.locator("#peers tbody tr").first).to_contain_text("training")
    finally:
        server.stop()


@pytest.mark.heavy
def test_sixty_days_of_500_peers_open_with_little(tmp_path: Path, page: Any) -> None:
    days = 60 * 86400.0
    now = time.time()
    swarm = SyntheticSwarm(1, 500, now - days, days)
    history = write_long_history(tmp_path / "history.sqlite", swarm, now)
    assert (tmp_path / "history.sqlite").stat().st_size < 100e6
    status = swarm.status(now)
    server = DashboardServer(create_app(history, lambda: status), "127.0.0.1", 0)
    server.start()
    try:
        page.goto(server.address)
        expect(page.locator("#timeline-note")).to_contain_text("500 peers", timeout=60_000)
        wait_for(lambda: pixels(page, "training") > 10000, page)
        # how fast it opens is measured in benchmarks/history_open.py; here, what it would be slow for
        answers = "performance.getEntriesByType('resource').filter((one) => one.name.includes('/api/'))"
        assert page.evaluate(f"{answers}.reduce((sum, one) => sum + one.transferSize, 0)") < 600_000
        assert page.evaluate("document.getElementsByTagName('*').length") < 2500
    finally:
        server.stop()
        history.close()
