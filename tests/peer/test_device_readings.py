"""What the driver says of GPUs travels in the peer's record, and what it does not say is left out."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import httpx
import pynvml
import pytest
import torch

from coordinator.dashboard import DashboardServer, create_app
from coordinator.history import History
from coordinator.totals import Totals
from coordinator.tracker import Tracker
from peer.device_readings import read_devices
from swarm.identity import Identity
from swarm.records import DeviceReading, PeerRecord, pack_record, unpack_record
from tests.coordinator.test_step_recorder import SPEC, Board

READING = DeviceReading(utilization=0.97, memory=0.25, power=250.5, temperature=65.0)
UNTOLD = DeviceReading(utilization=0.97, memory=0.25)


class Lost(pynvml.NVMLError):
    """What the driver answers of a GPU that has fallen off the bus, or of what it does not tell."""


@pytest.fixture
def driver(monkeypatch) -> Callable[..., None]:
    """Makes nvidia-ml-py tell of GPUs; `lost` ones do not answer, `virtual` ones have neither watts nor degrees."""

    def install(lost: tuple[int, ...] = (), virtual: tuple[int, ...] = ()) -> None:
        def of_the_living(answer: object, hidden: tuple[int, ...] = ()) -> Callable:
            def read(handle: int, *_arguments: object) -> object:
                if handle in lost or handle in hidden:
                    raise Lost(pynvml.NVML_ERROR_GPU_IS_LOST)
                return answer

            return read

        answers = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUtilizationRates": of_the_living(SimpleNamespace(gpu=97)),
            "nvmlDeviceGetPowerUsage": of_the_living(250_500, virtual),
            "nvmlDeviceGetTemperature": of_the_living(65, virtual),
        }
        for name, answer in answers.items():
            monkeypatch.setattr(pynvml, name, answer)
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=16 * 2**30)
        )
        # torch asks for the current device first, which needs CUDA
        monkeypatch.setattr(torch.cuda, "device_memory_used", lambda device: 4 * 2**30)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return install


def test_reads_the_gpus_that_answer_and_says_nothing_of_a_cpu(driver):
    driver(lost=(1,), virtual=(2,))
    assert read_devices(["cuda:0", "cuda:1", "cuda:2"]) == (READING, UNTOLD)
    assert read_devices(["cpu", "cpu"]) == ()


def test_a_driver_that_is_not_there_costs_the_readings_only():
    assert read_devices(["cuda:0"]) == ()


def test_what_the_driver_says_of_sixteen_gpus_is_what_the_page_gets(driver, tmp_path):
    driver()
    board, totals = Board(), Totals()
    readings = read_devices([f"cuda:{index}" for index in range(16)])
    board.say("node", 1, ranks=16, device="Tesla V100", devices=readings)
    history, tracker = History(tmp_path / "history.sqlite"), Tracker(board, SPEC, totals)
    status = tracker.poll()
    history.record_status(status, status.generated_at)
    server = DashboardServer(create_app(history, lambda: tracker.status), "127.0.0.1", 0)
    server.start()
    try:
        shown = httpx.get(f"{server.address}/api/status").json()["peers"][0]
    finally:
        server.stop()
    assert (shown["ranks"], shown["hardware"]) == (16, "Tesla V100")
    assert [DeviceReading(**device) for device in shown["devices"]] == [READING] * 16
    assert history.counts(0.0)["gpus"] == [16]
    history.close()


def test_a_record_holds_the_readings_of_sixteen_devices():
    identity = Identity.generate()
    record = PeerRecord(
        run_id="run",
        issued=0.0,
        expires=10.0,
        name="n" * 200,
        version="1",
        state="training",
        device="d" * 200,
        global_step=0,
        reloads={"fell behind" * 10: 1},
        last_error="e" * 200,
        devices=(READING,) * 16,
    )
    packed = pack_record(record, identity)
    assert unpack_record(PeerRecord, packed, identity.peer_id, "run") == record
