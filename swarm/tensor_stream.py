"""Tensors over a stream of messages: compressed by the sender, checked against a known layout by the receiver.

Nothing is believed: not the number of tensors, their shapes, types, size on the wire, nor that values are finite.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from google.protobuf.message import DecodeError
from hivemind.compression import CompressionBase, CompressionInfo, deserialize_torch_tensor
from hivemind.proto import runtime_pb2
from hivemind.utils.streaming import combine_from_streaming, split_for_streaming

from swarm.snapshot import Layout

OVERHEAD_BYTES = 2**20
MESSAGE_BYTES = 2**16


class UnfitTensors(Exception):
    """What arrived are not the tensors that were expected; says why."""


def pack_tensors(tensors: Sequence[torch.Tensor], codec: CompressionBase) -> Iterator[Any]:
    """Compress tensors one after another into hivemind's `Tensor` messages of at most `MESSAGE_BYTES` each."""
    for index, tensor in enumerate(tensors):
        info = CompressionInfo.from_tensor(tensor, key=index)
        yield from split_for_streaming(codec.compress(tensor, info, allow_inplace=False), MESSAGE_BYTES)


def pack_messages(tensors: Sequence[torch.Tensor], codec: CompressionBase) -> list[bytes]:
    """The same, as bytes for one of our own remote calls."""
    return [part.SerializeToString() for part in pack_tensors(tensors, codec)]


class TensorCollector:
    """Puts the messages of `pack_tensors` together again.

    :param layouts: of the tensors that must arrive, in order

    >>> from hivemind.compression import NoCompression
    >>> collector = TensorCollector([Layout((2,))])
    >>> for part in pack_tensors([torch.tensor([1.0, 2.0])], NoCompression()):
    ...     collector.add(part)
    >>> collector.finish()[0].tolist()
    [1.0, 2.0]
    """

    def __init__(self, layouts: Sequence[Layout]):
        self._layouts = list(layouts)
        self._limit = sum(layout.bytes for layout in self._layouts) + OVERHEAD_BYTES
        self._received = 0
        self._parts: list[Any] = []
        self._tensors: list[torch.Tensor] = []

    def add(self, part: Any) -> None:
        """Take the next message; raises `UnfitTensors` as soon as it is clear that the rest will not fit."""
        self._received += len(part.buffer)
        if self._received > self._limit:
            raise UnfitTensors(f"more than the {self._limit} bytes that the tensors have were sent")
        if part.dtype and self._parts:  # only the first part of a tensor carries its type
            self._complete_tensor()
        if not self._parts:
            self._check_layout(part)
        elif not part.buffer:  # any number of them would fit
            raise UnfitTensors("an empty message was sent")
        self._parts.append(part)

    def add_message(self, message: bytes) -> None:
        """Take the next message of `pack_messages`."""
        try:
            self.add(runtime_pb2.Tensor.FromString(message))
        except DecodeError:
            raise UnfitTensors("a message is not a part of a tensor") from None

    def finish(self) -> list[torch.Tensor]:
        """All tensors; raises `UnfitTensors` if some are missing."""
        if self._parts:
            self._complete_tensor()
        if len(self._tensors) != len(self._layouts):
            raise UnfitTensors(f"{len(self._tensors)} of {len(self._layouts)} tensors were sent")
        return self._tensors

    def _check_layout(self, first: Any) -> None:
        index = len(self._tensors)
        if index >= len(self._layouts):
            raise UnfitTensors("too many tensors were sent")
        expected = self._layouts[index]
        sent = f"{first.dtype}{list(first.size)}"
        if sent != str(expected):
            raise UnfitTensors(f"tensor {index} is {sent}, not {expected}")

    def _complete_tensor(self) -> None:
        index = len(self._tensors)
        try:
            tensor = deserialize_torch_tensor(combine_from_streaming(self._parts))
        except Exception as error:  # a sender can make the codecs fail in any way
            raise UnfitTensors(f"tensor {index} cannot be decoded ({error})") from None
        if Layout.of(tensor) != self._layouts[index] or not torch.isfinite(tensor).all():
            raise UnfitTensors(f"tensor {index} has values that are not finite, or too few")
        self._tensors.append(tensor)
        self._parts = []
