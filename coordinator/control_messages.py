"""Between the run's own models and the messages of `control.proto`: the fields have the same names on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict, Parse
from google.protobuf.message import Message
from pydantic import BaseModel

from coordinator import control_pb2
from coordinator.status import RunStatus
from swarm.settings import RunSettings, SettingsBook, SettingsChange

Kind = TypeVar("Kind", bound=Message)


def to_message(model: BaseModel, message: Kind) -> Kind:
    """Fill a message from a model with fields of the same names; numbers that are not finite are left out."""
    return Parse(model.model_dump_json(exclude_none=True), message)


def from_message(message: Message) -> dict[str, Any]:
    """A message's fields by name, those without a value left out."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def status_of(message: control_pb2.Run) -> RunStatus:
    """The status that was sent."""
    return RunStatus.model_validate(from_message(message))


def change_message(change: SettingsChange) -> control_pb2.SettingsChange:
    """A change as it travels."""
    settings = to_message(change.settings, control_pb2.Settings())
    return control_pb2.SettingsChange(version=change.version, from_step=change.from_step, settings=settings)


def plan_message(book: SettingsBook, step: int) -> control_pb2.SettingsPlan:
    """What holds at a step, and what is planned after it."""
    entries = book.entries
    held = max((index for index, entry in enumerate(entries) if entry.from_step <= step), default=0)
    changes = [SettingsChange(book.version, entry.from_step, entry.settings) for entry in entries[held:]]
    return control_pb2.SettingsPlan(version=book.version, changes=map(change_message, changes))


def settings_of(message: control_pb2.Settings) -> RunSettings:
    """The settings that were sent."""
    values: Mapping[str, Any] = from_message(message)
    return RunSettings.model_validate(values, strict=False)
