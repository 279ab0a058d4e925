"""What the driver says of GPUs travels in the peer's record, and what it does not say is left out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from peer.device_readings import read_devices
from swarm.identity import Identity
from swarm.records import DeviceReading, PeerRecord, pack_record, unpack_record

READING = DeviceReading(utilization=0.97, memory=0.25, power=250.5, temperature=65.0)


@pytest.fixture
def driver(monkeypatch):
    """A driver that knows two GPUs, of which the second has fallen off the bus."""

    def utilization(device: torch.device) -> int:
        if device.index == 1:
            raise RuntimeError("GPU is lost")
        return 97

    monkeypatch.setattr(torch.cuda, "utilization", utilization)
    monkeypatch.setattr(torch.cuda, "device_memory_used", lambda device: 4 * 2**30)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=16 * 2**30)
    )
    monkeypatch.setattr(torch.cuda, "power_draw", lambda device: 250_500)
    monkeypatch.setattr(torch.cuda, "temperature", lambda device: 65)


def test_reads_the_gpus_that_answer_and_says_nothing_of_a_cpu(driver):
    assert read_devices(["cuda:0", "cuda:1"]) == (READING,)
    assert read_devices(["cpu", "cpu"]) == ()


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
