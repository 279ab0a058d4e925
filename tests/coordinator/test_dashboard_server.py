"""The dashboard's server and JSON: binding, stopping, streams, errors."""

import asyncio
import itertools
import json
import math
import re
import socket
import sqlite3
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from coordinator.dashboard import STATIC, DashboardError, DashboardServer, create_app, create_replay_app
from coordinator.event_stream import BACKLOG, Broadcaster, difference
from coordinator.history import History
from coordinator.history_reader import HistoryReader
from coordinator.status import RunStatus
from tests.coordinator.runs import T0, peer, run_status


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "history.sqlite")
    for second in range(60):
        peers = [peer(1, samples=10 * second), peer(2, "lost" if second > 40 else "training")]
        history.record_status(run_status(*peers), T0 + second)
    yield history
    history.close()


@pytest.fixture
def server(history: History) -> Iterator[DashboardServer]:
    def status() -> RunStatus:
        return run_status(peer(1), peer(2, "lost"), generated_at=time.time())

    server = DashboardServer(create_app(history, status), "127.0.0.1", 0)
    server.start()
    yield server
    server.stop()


def stream_messages(response: httpx.Response) -> Iterator[tuple[str, dict]]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


def test_status_is_the_contract_of_the_command_line(server: DashboardServer) -> None:
    status = httpx.get(f"{server.address}/api/status").json()
    assert list(status)[:12] == [
        *("run_id", "state", "global_step", "target_batch_size", "peers_online", "samples_per_second"),
        *("samples_total", "goodput", "train_loss", "heldout_loss", "peers", "checkpoints"),
    ]
    assert list(status["peers"][0])[:10] == [
        *("peer_id", "name", "state", "device", "ranks", "samples_per_second", "samples_contributed"),
        *("global_step", "loss", "last_seen"),
    ]


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_stream_begins_with_a_snapshot_and_goes_on_with_deltas(
    server: DashboardServer, encoding: str
) -> None:
    asked = {"Accept-Encoding": encoding}
    with httpx.stream("GET", f"{server.address}/api/stream", headers=asked, timeout=10) as response:
        assert response.headers.get("Content-Encoding", "identity") == encoding
        messages = stream_messages(response)
        name, first = next(messages)
        assert name == "snapshot"
        assert [p["peer_id"] for p in first["status"]["peers"]] == [peer(1).peer_id, peer(2).peer_id]
        name, second = next(messages)
        assert name == "delta"
        assert second["run"]["generated_at"] > first["status"]["generated_at"]
        assert second["gone"] == []


def test_stop_is_prompt_with_streams_open_and_frees_the_port(server: DashboardServer) -> None:
    port = int(server.address.rsplit(":", 1)[1])
    opened, ended = threading.Barrier(4), []

    def watch() -> None:
        with httpx.stream("GET", f"{server.address}/api/stream", timeout=10) as response:
            messages = stream_messages(response)
            next(messages)
            opened.wait()
            for _ in messages:
                pass
            ended.append(True)

    viewers = [threading.Thread(target=watch) for _ in range(3)]
    for viewer in viewers:
        viewer.start()
    opened.wait()
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 3
    for viewer in viewers:
        viewer.join(timeout=5)
    assert ended == [True] * 3
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def test_port_in_use_is_one_line_that_names_it(server: DashboardServer, history: History) -> None:
    port = int(server.address.rsplit(":", 1)[1])
    second = DashboardServer(create_app(history, run_status), "127.0.0.1", port)
    with pytest.raises(DashboardError) as caught:
        second.start()
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_host_is_one_line(history: History) -> None:
    with pytest.raises(DashboardError, match=r"nobody\.invalid:0"):
        DashboardServer(create_app(history, run_status), "nobody.invalid", 0).start()


def test_every_figure_has_its_json(server: DashboardServer) -> None:
    described = httpx.get(f"{server.address}/api/openapi.json").json()["paths"]
    for route in (
        "counts",
        "steps",
        "rounds",
        "checkpoints",
        "events",
        "marks",
        "timeline",
        "contributors",
        "run",
    ):
        assert f"/api/{route}" in described
        assert httpx.get(f"{server.address}/api/{route}").status_code == 200
    counts = httpx.get(f"{server.address}/api/counts", params={"last": 30}).json()
    assert counts["t"][-1] == T0 + 59
    assert counts["training"][-1] == 1
    assert counts["lost"][-1] == 1


def test_bad_questions_are_refused_plainly(server: DashboardServer) -> None:
    assert httpx.get(f"{server.address}/api/counts", params={"points": 10**9}).status_code == 422
    assert httpx.get(f"{server.address}/api/counts", params={"start": "yesterday"}).status_code == 422
    assert httpx.get(f"{server.address}/static/../dashboard.py").status_code == 404


@pytest.mark.parametrize("moment", ["nan", "inf", "-inf", "1e300", "-5"])
@pytest.mark.parametrize(
    "question",
    ["at?t=", "counts?start=", "counts?end=", "steps?last=", "timeline?start=", "export/stays.csv?end="],
)
def test_moments_that_are_none_are_refused_plainly(
    server: DashboardServer, question: str, moment: str
) -> None:
    answer = httpx.get(f"{server.address}/api/{question}{moment}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "query"


@pytest.mark.parametrize("question", ["events?before_id=", "timeline?offset="])
def test_numbers_that_the_history_cannot_count_to_are_refused(server: DashboardServer, question: str) -> None:
    assert httpx.get(f"{server.address}/api/{question}{2**63}").status_code == 422
    assert httpx.get(f"{server.address}/api/{question}{2**63 - 1}").status_code == 200


def test_page_may_load_nothing_from_elsewhere(server: DashboardServer) -> None:
    response = httpx.get(server.address)
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert "http://" not in response.text
    assert "https://" not in response.text


def test_history_that_fails_is_said_in_json(history: History, server: DashboardServer) -> None:
    history.path.rename(history.path.with_suffix(".away"))
    answer = httpx.get(f"{server.address}/api/counts")
    assert answer.status_code == 503
    assert "history.sqlite" in answer.json()["detail"]


def test_replay_serves_a_finished_run(history: History) -> None:
    history.close()
    server = DashboardServer(create_replay_app(HistoryReader(history.path)), "127.0.0.1", 0)
    server.start()
    try:
        facts = httpx.get(f"{server.address}/api/run").json()
        assert facts["replay"] is True
        assert (facts["first"], facts["newest"]) == (T0, T0 + 59)
        assert httpx.get(f"{server.address}/api/status").json()["run_id"] == "test"
        assert httpx.get(f"{server.address}/api/stream").status_code == 404
    finally:
        server.stop()


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_the_stream_is_json_whatever_the_numbers_are() -> None:
    async def watch() -> bytes:
        status = run_status(peer(1, loss=math.inf, samples_per_second=math.nan), generated_at=T0)
        broadcaster = Broadcaster(lambda: status)
        ticking = asyncio.create_task(broadcaster.run())
        message = await anext(broadcaster.subscribe())
        ticking.cancel()
        return message

    status = json.loads(asyncio.run(watch()).partition(b"data: ")[2], parse_constant=refuse)["status"]
    assert (status["samples_per_second"], status["peers"][0]["loss"]) == (None, None)


def test_a_history_that_holds_numbers_that_are_not_finite_is_shown(
    history: History, server: DashboardServer
) -> None:
    with closing(sqlite3.connect(history.path)) as db, db:
        db.execute("UPDATE counts SET samples_per_second = 9e999")
    answer = httpx.get(f"{server.address}/api/counts", params={"last": 3600})
    assert answer.status_code == 200
    assert set(answer.json()["samples_per_second"]) == {None}


def test_a_viewer_that_falls_behind_gets_a_new_snapshot() -> None:
    async def watch() -> list[str]:
        steps = itertools.count()
        status = lambda: run_status(peer(1), generated_at=T0, global_step=next(steps))  # noqa: E731
        broadcaster = Broadcaster(status, every=0.0)
        ticking = asyncio.create_task(broadcaster.run())
        fast, slow = broadcaster.subscribe(), broadcaster.subscribe()
        first = await anext(slow)
        for _ in range(3 * BACKLOG):
            await anext(fast)
        received = [first]
        while b"event: snapshot" not in received[-1] or len(received) == 1:
            received.append(await anext(slow))
            await anext(fast)
        ticking.cancel()
        return [message.decode().split("\n")[0] for message in received]

    names = asyncio.run(watch())
    assert names[0] == "event: snapshot"
    assert names[1:-1] == ["event: delta"] * (len(names) - 2)
    assert names[-1] == "event: snapshot"


def test_viewers_of_a_compressed_stream_share_its_messages_whenever_they_came() -> None:
    async def read(stream: AsyncIterator[bytes], messages: int) -> list[str]:
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
        parts = [await anext(stream) for _ in range(messages + 1)]  # the header of the stream is one
        return b"".join(map(unpack.decompress, parts)).decode().split("\n\n")

    async def watch() -> tuple[list[str], list[str]]:
        steps = itertools.count()
        status = lambda: run_status(peer(1), generated_at=T0, global_step=next(steps))  # noqa: E731
        broadcaster = Broadcaster(status, every=0.0)
        ticking = asyncio.create_task(broadcaster.run())
        early = await read(broadcaster.subscribe(packed=True), 5)
        late = await read(broadcaster.subscribe(packed=True), 3)
        ticking.cancel()
        return early, late

    for events in asyncio.run(watch()):
        first, *others = (json.loads(event.partition("data: ")[2]) for event in events[:-1])
        assert events[-1] == ""
        assert first["status"]["peers"][0]["peer_id"] == peer(1).peer_id
        steps = [first["status"]["global_step"], *(other["run"]["global_step"] for other in others)]
        assert steps == list(range(steps[0], steps[0] + len(steps)))


def test_who_comes_when_nobody_has_watched_for_long_sees_what_is_now() -> None:
    async def watch() -> dict:
        status = run_status(peer(1), generated_at=T0, global_step=1)
        broadcaster = Broadcaster(lambda: status)
        ticking = asyncio.create_task(broadcaster.run())
        first = broadcaster.subscribe()
        await anext(first)
        await first.aclose()
        status = run_status(peer(1), generated_at=T0 + 3600, global_step=80)
        message = await anext(broadcaster.subscribe())
        ticking.cancel()
        return json.loads(message.partition(b"data: ")[2])

    assert asyncio.run(watch())["status"]["global_step"] == 80


def test_news_does_not_wait_because_a_sign_of_life_was_sent() -> None:
    async def watch(every: float) -> float:
        status = run_status(peer(1), generated_at=T0, global_step=1)
        broadcaster = Broadcaster(lambda: status, every)
        ticking = asyncio.create_task(broadcaster.run())
        stream = broadcaster.subscribe()
        await anext(stream)
        sign = json.loads((await anext(stream)).partition(b"data: ")[2])
        assert sign["run"] == {"generated_at": T0}
        status = run_status(peer(1), generated_at=T0 + 1, global_step=2)
        since = time.monotonic()
        news = json.loads((await anext(stream)).partition(b"data: ")[2])
        ticking.cancel()
        assert news["run"]["global_step"] == 2
        return time.monotonic() - since

    assert asyncio.run(watch(every=3.0)) < 1.4


def test_page_has_the_same_words_in_both_languages_and_no_others() -> None:
    scripts = {path.name: path.read_text() for path in (STATIC / "js").glob("*.js")}
    english, russian = (
        set(re.findall(r"^  (\w+):", scripts.pop(f"words_{language}.js"), re.MULTILINE))
        for language in ("en", "ru")
    )
    only_russian = {
        key for key in russian if key.startswith("event_")
    }  # English events are shown as recorded
    assert english - {"event_"} == russian - (only_russian - english)
    everything = "".join(scripts.values()) + (STATIC / "index.html").read_text()
    said = set(re.findall(r"""\bt\("(\w+)"|data-i18n="(\w+)\"""", everything))
    assert {one or other for one, other in said} <= english


def test_page_preloads_every_module_and_every_file_is_there() -> None:
    page = (STATIC / "index.html").read_text()
    for path in re.findall(r'(?:src|href)="/static/([^"]+)"', page):
        assert (STATIC / path).is_file()
    assert {path.name for path in (STATIC / "js").glob("*.js")} == set(re.findall(r'/js/(\w+\.js)"', page))


def test_delta_holds_only_what_changed() -> None:
    before = run_status(peer(1, share=0.5), peer(2), peer(3), generated_at=T0).model_dump(mode="json")
    after = run_status(
        peer(1, last_seen=1.0, share=0.4),
        peer(2, "averaging", last_seen=1.0),
        generated_at=T0 + 1,
        global_step=5,
    ).model_dump(mode="json")
    delta = difference(before, after)
    assert delta["peers"] == [{"peer_id": peer(2).peer_id, "state": "averaging"}]
    assert delta["gone"] == [peer(3).peer_id]
    assert delta["run"]["global_step"] == 5
    assert "run_id" not in delta["run"]
