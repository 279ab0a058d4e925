"""Links on which everything takes its time, for kernels without netem: every frame passes through this process.

Started by `Network` where its bridges are. For each of so many hosts it makes two Ethernet devices, `hostN` and `farN`,
and hands what comes in at one of them over to the other so many seconds later. They exist as long as this process.

    python -m tests.scenarios.delayed_links HOSTS SECONDS

Says `{"ready": true}` when they are there, and ends when its stdin does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

TUN_DEVICE = "/dev/net/tun"
# from <linux/if_tun.h>
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
# frames may be as large as TCP makes them between namespaces, and have no checksum yet, as there
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 0x01, 0x02, 0x04
MAX_FRAME_BYTES = 2**16 + 64


@dataclass(frozen=True)
class Delayed:
    """A frame on its way.

    :param due: when it arrives, in seconds of the monotonic clock
    :param to: descriptor of the device that it comes out of
    """

    due: float
    to: int
    frame: bytes


def main() -> None:
    """Make the devices, and delay what goes through them."""
    hosts, seconds = int(sys.argv[1]), float(sys.argv[2])
    other: dict[int, int] = {}
    for host in range(hosts):
        near, far = _open_device(f"host{host}"), _open_device(f"far{host}")
        other |= {near: far, far: near}
    print(json.dumps({"ready": True}), flush=True)
    _pass_on(other, seconds)


def _open_device(name: str) -> int:
    descriptor = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK)
    flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    fcntl.ioctl(descriptor, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
    return descriptor


def _pass_on(other: dict[int, int], seconds: float) -> None:
    """Until stdin ends."""
    waiting = deque[Delayed]()  # all take as long, so that the first to come is the first to go
    poll = select.epoll()
    for descriptor in (*other, sys.stdin.fileno()):
        poll.register(descriptor, select.EPOLLIN)
    while True:
        for descriptor, _event in poll.poll(_until(waiting)):
            if descriptor == sys.stdin.fileno():
                return
            due = time.monotonic() + seconds
            waiting.extend(Delayed(due, other[descriptor], frame) for frame in _frames_at(descriptor))
        while waiting and waiting[0].due <= time.monotonic():
            delayed = waiting.popleft()
            with contextlib.suppress(OSError):  # a device that is down lets nothing through
                os.write(delayed.to, delayed.frame)


def _until(waiting: deque[Delayed]) -> float | None:
    return max(0.0, waiting[0].due - time.monotonic()) if waiting else None


def _frames_at(descriptor: int) -> Iterator[bytes]:
    """All that have come."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield os.read(descriptor, MAX_FRAME_BYTES)


if __name__ == "__main__":
    main()
