"""The vocabulary of averaging rounds: what is averaged, what came of it, and that it failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class RoundKind(int, Enum):
    """What a round averages; part of the group's key."""

    GRADIENTS = 0
    STATE = 1


@dataclass(frozen=True)
class RoundResult:
    """What one averaging round really did, seen from this peer.

    :param round_id: the same for every member of the group, and for nobody else
    :param samples_by_peer: samples that each member of the group put in, by peer id, ourselves included
    :param received_fraction: share of the averaged values that came back from their reducers, 0 to 1
    :param inputs_fraction: share of the others' values that reached us as a reducer, 0 to 1
    :param silent: members of the group that sent us nothing, or not enough, in time
    :param offenders: members whose values could not be used, and why, by peer id
    :param allreduce_seconds: time of the exchange itself; finding the group is not in it
    """

    round_id: str
    samples_by_peer: dict[str, int]
    received_fraction: float
    inputs_fraction: float
    silent: frozenset[str] = frozenset()
    allreduce_seconds: float = 0.0
    offenders: Mapping[str, str] = field(default_factory=dict)

    @property
    def group_size(self) -> int:
        return len(self.samples_by_peer)

    @property
    def complete(self) -> bool:
        """Whether everything that the group sent arrived."""
        return self.received_fraction == 1.0 and self.inputs_fraction == 1.0


class RoundFailed(Exception):
    """No group was found, or the all-reduce broke off; the tensors may hold a mixture and must be thrown away."""
