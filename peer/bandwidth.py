"""Measures our upload once we train, so that rounds give a slow peer less to reduce than a fast one.

In a butterfly all-reduce everyone sends its values to the others and, for the share that it reduces, the average back:
hivemind divides the shares by what members say of their bandwidth. Measured once, in the background, with the run's
first contact, and not before we have the swarm's state, which comes first; without an answer we count as fast as the
others do on average.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time

from peer.presence import Presence
from swarm.averager import FAST_ENOUGH_MEGABITS, SwarmAverager
from swarm.probe import measure_upload
from swarm.service import ServiceThread

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 1.0


def measure_in_background(
    service: ServiceThread, contact: str, averager: SwarmAverager, presence: Presence
) -> None:
    """Give the averager our bandwidth, in Mbit/s, as soon as it is known; ends with the process."""
    arguments = (service, contact, averager, presence)
    threading.Thread(target=_measure, args=arguments, name="bandwidth", daemon=True).start()


def _measure(service: ServiceThread, contact: str, averager: SwarmAverager, presence: Presence) -> None:
    while not presence.activity.state.contributes:
        time.sleep(LOOK_SECONDS)
    measuring = measure_upload(service.p2p, contact, FAST_ENOUGH_MEGABITS)
    try:
        speed = service.run(measuring, timeout=PATIENCE_SECONDS)
    except (TimeoutError, asyncio.TimeoutError, RuntimeError) as error:
        # too slow to tell, or we are leaving already
        logger.info("our upload was not measured: %s", error or type(error).__name__)
        return
    if speed is None:
        logger.info("our upload was not measured: %s does not answer", contact)
        return
    averager.bandwidth = min(speed.megabits_per_second, FAST_ENOUGH_MEGABITS)
    logger.info("our upload is %.0f Mbit/s", speed.megabits_per_second)
