"""Metrics out: Prometheus, Grafana's file, CSV, TensorBoard files."""

import csv
import io
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import get_args

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from coordinator import history_export
from coordinator.dashboard import create_app
from coordinator.history import History
from coordinator.history_export import Table, csv_lines
from coordinator.metric_logs import MetricLogError, TensorBoardLog, step_metrics
from coordinator.prometheus import render
from coordinator.status import CheckpointStatus, RunStatus
from tests.coordinator.runs import T0, peer, run_status

TABLES: tuple[Table, ...] = get_args(Table)
GRAFANA = Path(__file__).parents[2] / "docker" / "grafana" / "artel-run.json"


def full_status() -> RunStatus:
    return run_status(
        peer(1, samples=100, loss=5.0),
        peer(2, "lost", name='tricky "name"\n'),
        global_step=7,
        target_steps=100,
        samples_total=448,
        samples_accumulated=12,
        goodput=0.9,
        train_loss=5.5,
        heldout_loss=5.6,
        generated_at=T0,
        checkpoints=[CheckpointStatus(step=5, path="checkpoints/step-00000005", saved_at=T0 - 60)],
    )


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "history.sqlite")
    history.record_status(full_status(), T0)
    history.record_step(6, T0 - 5, 5.6, 64, 2, 1.0, 1.5, 2, bytes_averaged=1000)
    history.record_step(7, T0, 5.5, 64, 1, 0.5, 2.5, 2, bytes_averaged=500, failed_rounds=1)
    yield history
    history.close()


def samples(history: History) -> dict[tuple, float]:
    families = text_string_to_metric_families(render(history, full_status).decode())
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_prometheus_has_the_run_the_peers_and_the_averaging(history: History) -> None:
    seen = samples(history)
    assert seen["artel_peers", "training"] == 1
    assert seen["artel_peers", "lost"] == 1
    assert seen["artel_run_state", "training"] == 1
    assert seen["artel_run_state", "stalled"] == 0
    assert seen["artel_samples_total",] == 448
    assert seen["artel_heldout_loss",] == 5.6
    assert seen["artel_checkpoint_step",] == 5
    assert seen["artel_averaging_bytes_total",] == 1500
    assert seen["artel_partial_rounds_total",] == 1
    assert seen["artel_failed_rounds_total",] == 1
    assert seen["artel_averaging_group_size",] == 1
    assert seen["artel_peer_samples_total", peer(1).peer_id, "otter-1"] == 100


def test_unknown_numbers_are_left_out_and_not_called_zero(tmp_path: Path) -> None:
    history = History(tmp_path / "history.sqlite")
    text = render(history, run_status).decode()
    history.close()
    assert "artel_train_loss" not in text
    assert "artel_averaging_seconds" not in text
    assert "artel_peers_online 0.0" in text


def test_every_metric_of_the_grafana_dashboard_exists(history: History) -> None:
    dashboard = json.loads(GRAFANA.read_text())
    text = json.dumps([panel["targets"] for panel in dashboard["panels"]]) + json.dumps(
        dashboard["annotations"]
    )
    wanted = set(re.findall(r"artel_\w+", text))
    assert len(wanted) > 15
    assert wanted <= {name for name, *_ in samples(history)}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_metrics_are_served(history: History) -> None:
    answer = TestClient(create_app(history, full_status)).get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "artel_global_step 7.0" in answer.text


@pytest.mark.parametrize("table", TABLES)
def test_each_table_is_exported_as_csv(history: History, table: str) -> None:
    history.record_checkpoint(5, "checkpoints/step-00000005", 5.6, "sha256:00", T0)
    history.record_status(full_status(), T0 + 1)
    answer = TestClient(create_app(history, full_status)).get(f"/api/export/{table}.csv")
    assert answer.status_code == 200
    header, *rows = csv.reader(io.StringIO(answer.text))
    assert rows
    assert all(len(row) == len(header) for row in rows)


def export_all(history: History, table: str) -> list[list[str]]:
    answer = TestClient(create_app(history, full_status)).get(f"/api/export/{table}.csv?every=hour")
    return list(csv.reader(io.StringIO(answer.text)))


@pytest.mark.parametrize("table", TABLES)
def test_an_export_has_every_row_once_however_many_pages_it_takes(
    history: History, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for second in range(7):
        history.record_checkpoint(second, f"checkpoints/step-{second:08d}", 5.6, "sha256:00", T0 + second)
        history.record_step(second, T0 + second // 2, 5.0, samples=64, group_size=2)
        peers = [peer(1, samples=second), peer(2, ("training", "averaging")[second % 2], samples=2 * second)]
        peers += [peer(number) for number in range(3, 3 + second)]
        history.record_status(run_status(*peers), T0 + 86400 * second)
    whole = export_all(history, table)
    assert len(whole) > 6
    for rows in (1, 2, 3):
        monkeypatch.setattr(history_export, "PAGE_ROWS", rows)
        assert export_all(history, table) == whole


@pytest.mark.parametrize("table", TABLES)
def test_a_client_that_stops_reading_does_not_keep_the_log_from_being_reset(
    history: History, table: str
) -> None:
    history.record_step(1, T0, 5.0, samples=64, group_size=2)
    history.record_checkpoint(1, "checkpoints/step-00000001", 5.6, "sha256:00", T0)
    history.record_status(full_status(), T0 + 1)
    with closing(csv_lines(history.path, table, T0, None, "second")) as lines:
        next(lines), next(lines)
        history.record_status(full_status(), T0 + 2)
        with closing(sqlite3.connect(history.path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert history.path.with_name("history.sqlite-wal").stat().st_size == 0


def test_csv_does_not_carry_formulas(history: History) -> None:
    history.record_status(run_status(peer(3, name='=HYPERLINK("http://x")')), T0 + 2)
    text = TestClient(create_app(history, full_status)).get("/api/export/peers.csv").text
    names = [row["name"] for row in csv.DictReader(io.StringIO(text))]
    assert """'=HYPERLINK("http://x")""" in names


def test_counts_can_be_exported_by_the_second(history: History) -> None:
    history.record_status(full_status(), T0 + 1)
    client = TestClient(create_app(history, full_status))
    text = client.get("/api/export/counts.csv", params={"every": "second"}).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [float(row["t"]) for row in rows] == [T0, T0 + 1]
    assert client.get("/api/export/secrets.csv").status_code == 422


def test_tensorboard_files_are_read_back(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path / "tensorboard")
    for step in (1, 2, 3):
        status = full_status().model_copy(update={"global_step": step, "train_loss": 7.0 - step})
        log.write(step_metrics(status), step, T0 + step)
    log.close()
    values = list(read_scalars(tmp_path / "tensorboard"))
    assert ("loss/train", 3, 4.0, T0 + 3) in values
    assert ("peers/lost", 1, 1.0, T0 + 1) in values
    assert ("swarm/peers_online", 2, 1.0, T0 + 2) in values


def read_scalars(directory: Path) -> Iterator[tuple[str, int, float, float]]:
    from tensorboardX.proto.event_pb2 import Event

    (file,) = directory.iterdir()
    data = file.read_bytes()
    place = 0
    while place < len(data):
        length = int.from_bytes(data[place : place + 8], "little")
        event = Event.FromString(data[place + 12 : place + 12 + length])
        place += 12 + length + 4  # length, its checksum, the event, its checksum
        for value in event.summary.value:
            yield value.tag, event.step, value.simple_value, event.wall_time


def test_tensorboard_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(MetricLogError, match="TensorBoard files cannot be written"):
        TensorBoardLog(tmp_path / "tensorboard")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_the_tensorboard_files_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = TensorBoardLog(tmp_path)
    log._writer._py_recordio_writer._writer = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    log.write({"loss/train": 1.0}, 1, T0)
    log.write({"loss/train": 1.0}, 2, T0)
    log.close()
    assert "given up" in caplog.text
