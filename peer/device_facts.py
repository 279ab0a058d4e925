"""What is known of a device before anything is computed on it; cheap to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceFacts:
    """A device a peer or a rank of it computes on.

    :param device: as torch names it, `cuda:1`
    :param description: what the peer record says of the hardware
    :param precision: of forward passes on it
    """

    device: str
    description: str
    precision: str
