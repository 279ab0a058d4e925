"""Hands what a departing peer has accumulated over to one that stays, so that no computed sample is lost.

The departing peer sends an offer (step, branch, samples, loss) and its mean gradient, compressed like in a round; the
heir's training loop adds it to its own accumulator between two micro-batches, and only then the answer says so. At
most once: an offer whose answer did not come is not made to anybody else. A gradient of another step or branch, from
somebody who is not a live peer of this step, of the wrong shapes, not finite, or much larger than the heir's own is
refused: what the heir sends on is the heir's.
"""

from __future__ import annotations

import asyncio
import logging
import queue
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from peer.accumulator import Accumulator, Contribution
from peer.presence import Presence
from swarm.codecs import compression_for
from swarm.guard import PartGuard, RoundLimits, size_of
from swarm.records import Branch
from swarm.rounds import RoundKind
from swarm.service import (
    NoAnswer,
    NotReached,
    ServiceThread,
    add_collect_handler,
    call_collect_handler,
)
from swarm.snapshot import Layout
from swarm.states import PeerState
from swarm.tensor_stream import TensorCollector, UnfitTensors, pack_messages

logger = logging.getLogger(__name__)

HANDLER = "artel.hand_over"
WAITING_OFFERS = 4
MAX_LOSS_SUM = 1e9
# an offer may take so long to arrive: on a slow link, as long as a large model needs
RECEIVING_SECONDS = 300.0
# how much larger than our own a gradient may be; others hold what we send on to more than that
SIZE_FACTOR = 3.0
# how long the heir's training loop may take until it looks at an offer: a micro-batch
SETTLING_SECONDS = 60.0


BUSY, LEAVING_TOO = "this peer is taking over others already", "this peer is leaving, too"


class HandOverFailed(Exception):
    """Nobody knows whether the offer was taken, so it must not be repeated; says who did not answer."""


class Offer(BaseModel):
    """The first message of a hand-over: what the gradient that follows is of."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    step: Annotated[int, Field(ge=0)]
    branch: Branch
    samples: Annotated[int, Field(gt=0)]
    loss_sum: Annotated[float, Field(ge=0, le=MAX_LOSS_SUM, allow_inf_nan=False)]


class Answer(BaseModel):
    """What became of an offer: `refused` gives the reason, and is empty if it was taken over."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    refused: str = ""


@dataclass
class _Waiting:
    """An offer that has arrived whole and waits for the training loop."""

    offer: Offer
    mean: Sequence[torch.Tensor]
    refusal: Future[str] = field(default_factory=Future)


@dataclass(frozen=True)
class _Yardstick:
    """Our own mean gradient of one step, by which offers are judged.

    :param of: step and branch
    """

    of: tuple[int, str]
    own: Sequence[torch.Tensor]
    guard: PartGuard

    def why_refused(self, mean: Sequence[torch.Tensor], samples: int) -> str | None:
        """What is wrong with a mean gradient of so many samples; None if nothing is."""
        for theirs, own in zip(mean, self.own, strict=True):
            if why := self.guard.why_refused(theirs, own, float(samples), float(samples)):
                return why
        return None


class HandOverDesk:
    """Receives what departing peers hand over.

    :param shapes: of the gradients, in order
    """

    def __init__(self, presence: Presence, shapes: Sequence[torch.Size]):
        self.presence, self.shapes = presence, list(shapes)
        self._waiting: queue.Queue[_Waiting] = queue.Queue(WAITING_OFFERS)
        self._arriving: set[str] = set()
        self._yardstick: _Yardstick | None = None
        self._closed = False

    def open(self, service: ServiceThread) -> None:
        """Begin to accept offers."""
        service.run(add_collect_handler(service.p2p, HANDLER, self._receive), timeout=10)

    def settle(self, accumulator: Accumulator, step: int, branch: str) -> int:
        """Called by the training loop between micro-batches: add what has arrived; returns the samples added.

        What arrives before we have a gradient of our own waits until there is one to judge it by.
        """
        added = 0
        while not self._waiting.empty() and self._can_judge(accumulator, step, branch):
            waiting = self._waiting.get_nowait()
            if not waiting.refusal.set_running_or_notify_cancel():
                continue  # the sender has given up
            offer, refusal = waiting.offer, self._judge(waiting, step, branch)
            if not refusal:
                accumulator.take_over(waiting.mean, offer.samples, offer.loss_sum)
                added += offer.samples
            waiting.refusal.set_result(refusal)
        return added

    def close(self) -> None:
        """Refuse what has arrived since the last `settle`, and what is still on its way."""
        self._closed = True
        while not self._waiting.empty():
            waiting = self._waiting.get_nowait()
            if waiting.refusal.set_running_or_notify_cancel():
                waiting.refusal.set_result(LEAVING_TOO)

    def _can_judge(self, accumulator: Accumulator, step: int, branch: str) -> bool:
        """Whether there is a gradient of our own at this step, as it was before anything was taken over."""
        if self._yardstick is None or self._yardstick.of != (step, branch):
            own = accumulator.own_mean()
            limits = RoundLimits(RoundKind.GRADIENTS, factor=SIZE_FACTOR, grows=accumulator.grows)
            guard = PartGuard(limits, size_of(own or ()), float(accumulator.samples))
            self._yardstick = None if own is None else _Yardstick((step, branch), own, guard)
        return self._yardstick is not None

    def _judge(self, waiting: _Waiting, step: int, branch: str) -> str:
        """Why an offer is refused; empty if it is not."""
        if (waiting.offer.step, waiting.offer.branch) != (step, branch):
            return "this peer has gone on"
        assert self._yardstick is not None
        why = self._yardstick.why_refused(waiting.mean, waiting.offer.samples)
        return f"the gradient has {why}" if why else ""

    async def _receive(self, messages: AsyncIterator[bytes], sender: str) -> bytes:
        if sender in self._arriving or len(self._arriving) >= WAITING_OFFERS:
            return Answer(refused=BUSY).model_dump_json().encode()
        self._arriving.add(sender)
        try:
            refusal = await self._take(messages, sender)
        except (UnfitTensors, ValidationError, ValueError) as error:
            refusal = f"malformed: {' '.join(str(error).split())[:200]}"
        except asyncio.TimeoutError:
            refusal = "this peer was too busy"
        finally:
            self._arriving.discard(sender)
        return Answer(refused=refusal).model_dump_json().encode()

    async def _take(self, messages: AsyncIterator[bytes], sender: str) -> str:
        arrived = await asyncio.wait_for(self._collect(messages, sender), RECEIVING_SECONDS)
        if isinstance(arrived, str):
            return arrived
        if self._closed:
            return LEAVING_TOO
        try:
            self._waiting.put_nowait(arrived)
        except queue.Full:
            return BUSY
        return await asyncio.wait_for(asyncio.wrap_future(arrived.refusal), SETTLING_SECONDS)

    async def _collect(self, messages: AsyncIterator[bytes], sender: str) -> _Waiting | str:
        """An offer and its gradient, or why it is refused without looking at the gradient."""
        offer = Offer.model_validate_json(await messages.__anext__())
        if reason := self._why_refused(offer, sender):
            return reason
        collector = TensorCollector([Layout(tuple(shape)) for shape in self.shapes])
        async for message in messages:
            collector.add_message(message)
        return _Waiting(offer, collector.finish())

    def _why_refused(self, offer: Offer, sender: str) -> str:
        activity = self.presence.activity
        if activity.departing or activity.state is PeerState.LEAVING:
            return LEAVING_TOO
        if (offer.step, offer.branch) != (activity.step, activity.branch):
            return f"this peer is at step {activity.step}"
        if sender not in self.presence.view.members_at(offer.step, offer.branch):
            return "the sender has no live lease for this step"
        if offer.samples > 2 * self.presence.settings.at(offer.step).target_batch_size:
            return "no peer accumulates that many samples in a step"
        return ""


def hand_over(
    service: ServiceThread,
    presence: Presence,
    accumulator: Accumulator,
    buffers: Sequence[torch.Tensor],
    seconds: float,
) -> str | None:
    """Give everything accumulated to one of the swarm's other peers; blocks at most `seconds`.

    :param buffers: fp32 tensors of the parameters' shapes, overwritten with the mean gradient
    :returns: who took it, after which the accumulator is empty; None if everybody refused
    :raises HandOverFailed: no answer came
    """
    taken = accumulator.take()
    handed_over = False
    try:
        heir = _offer_around(service, presence, taken, buffers, seconds)
        handed_over = heir is not None
        return heir
    finally:
        if not handed_over:
            accumulator.put_back(taken)


def _offer_around(
    service: ServiceThread,
    presence: Presence,
    taken: Contribution,
    buffers: Sequence[torch.Tensor],
    seconds: float,
) -> str | None:
    activity = presence.activity
    if not taken.mean_into(buffers):
        return None
    offer = Offer(step=activity.step, branch=activity.branch, samples=taken.samples, loss_sum=taken.loss_sum)
    codec = compression_for(presence.spec.averaging.gradient_compression)
    messages = pack_messages(buffers, codec)
    for heir in presence.view.heirs(activity.step, activity.branch, exclude=presence.peer_id):
        try:
            answer = service.run(_send(service, heir, offer, messages), timeout=seconds)
        except NotReached as error:  # it is gone already
            logger.warning("%s does not take over our samples: %s", heir, error)
            continue
        except (NoAnswer, FutureTimeout, asyncio.TimeoutError, ValidationError) as error:
            # it may have been added all the same: offered to another one it could count twice
            raise HandOverFailed(f"no answer from {heir} ({str(error) or type(error).__name__})") from None
        if not answer.refused:
            return heir
        logger.warning("%s does not take over our samples: %s", heir, answer.refused)
    return None


async def _send(service: ServiceThread, heir: str, offer: Offer, tensors: Sequence[bytes]) -> Answer:
    def messages() -> Iterator[bytes]:
        yield offer.model_dump_json().encode()
        yield from tensors

    return Answer.model_validate_json(await call_collect_handler(service.p2p, heir, HANDLER, messages()))
