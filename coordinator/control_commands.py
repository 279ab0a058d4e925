"""Sub-commands of `coordinator` that are clients of the control API: parse, call, print."""

from __future__ import annotations

import functools
import inspect
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from pydantic import BaseModel

from swarm.errors import BadInput
from swarm.settings import CHANGEABLE

RunDir = Annotated[Path | None, typer.Option(help="Directory of the run; by default the only one in runs/.")]
Control = Annotated[str | None, typer.Option(help="HOST:PORT of the control API of a run elsewhere.")]
TokenFile = Annotated[Path | None, typer.Option(help="File with the token; default: the run directory's.")]
TlsCa = Annotated[Path | None, typer.Option(help="PEM file of the authority behind the API's certificate.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]
Seconds = Annotated[float, typer.Option(help="How long to wait for it.")]

MAX_WAIT = 3600.0

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS_OF = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def duration_in_seconds(text: str) -> float:
    """Seconds of a duration like `90m`, `12h` or `7d`; raises `BadInput`.

    >>> duration_in_seconds("12h")
    43200.0
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise BadInput(f"{text!r} is no duration: write a number with s, m, h, d or w, e.g. 7d")
    return float(found[1]) * _SECONDS_OF[found[2]]


class Call(Protocol):
    """Calls `method(api, timeout=…, metadata=…)` at the run that the command's options name; raises `ArtelError`."""

    def __call__(self, method: Callable[..., Any], timeout: float | None = None) -> Any: ...


def at_a_run(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which run it is for; it gets a `Call` as its first argument."""

    @functools.wraps(command)
    def with_place(
        *, run_dir: RunDir, control: Control, token_file: TokenFile, tls_ca: TlsCa, **others: Any
    ) -> None:
        from coordinator.control_client import CALL_SECONDS, ControlClient, ControlPlace

        def call(method: Callable[..., Any], timeout: float | None = None) -> Any:
            with ControlClient(ControlPlace(run_dir, control, token_file, tls_ca)) as client:
                return client.call(method, CALL_SECONDS if timeout is None else timeout)

        command(call, **others)

    _call, *own = inspect.signature(command, eval_str=True).parameters.values()
    place = (("run_dir", RunDir), ("control", Control), ("token_file", TokenFile), ("tls_ca", TlsCa))
    options = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=kind)
        for name, kind in place
    ]
    # what typer reads the command's options from
    with_place.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    with_place.__annotations__ = {each.name: each.annotation for each in [*own, *options]}
    return with_place


def add_control_commands(app: typer.Typer) -> None:
    """Register them with the `coordinator` command."""
    app.command("peers")(peers)
    app.command("checkpoints")(checkpoints)
    app.command("checkpoint")(checkpoint)
    app.command("pause")(pause)
    app.command("resume")(resume)
    app.command("finish")(finish)
    app.command("settings")(settings)
    app.command("set")(set_)
    app.command("invite")(invite)
    app.command("evict")(evict)


@at_a_run
def peers(
    call: Call,
    peer: Annotated[str | None, typer.Argument(help="Only this one, by name or peer id.")] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="Only those in this state; can be given again.")
    ] = None,
    json: AsJson = False,
) -> None:
    """List the peers, or show one."""
    from coordinator import control_pb2
    from coordinator.control_messages import from_message
    from coordinator.report import describe_peer
    from coordinator.status import PeerStatus

    def ask(api: Any, **how: Any) -> Any:
        if peer is not None:
            return [api.GetPeer(control_pb2.GetPeerRequest(peer=peer), **how)]
        return api.ListPeers(control_pb2.ListPeersRequest(states=state or []), **how).peers

    found = [PeerStatus.model_validate(from_message(each)) for each in call(ask)]
    if json:
        print(_Peers(peers=found).model_dump_json())
    else:
        print("\n".join(map(describe_peer, found)) or "no peer is known")


@at_a_run
def checkpoints(call: Call, json: AsJson = False) -> None:
    """List the checkpoints on disk."""
    from coordinator import control_pb2
    from coordinator.control_messages import from_message
    from coordinator.report import describe_checkpoint
    from coordinator.status import CheckpointStatus

    answer = call(lambda api, **how: api.ListCheckpoints(control_pb2.ListCheckpointsRequest(), **how))
    found = [CheckpointStatus.model_validate(from_message(each)) for each in answer.checkpoints]
    if json:
        print(_Checkpoints(checkpoints=found).model_dump_json())
    else:
        print("\n".join(map(describe_checkpoint, found)) or "there is no checkpoint yet")


@at_a_run
def checkpoint(call: Call, wait: Seconds = MAX_WAIT, json: AsJson = False) -> None:
    """Copy the newest state from the swarm and write it as a checkpoint now."""
    from coordinator import control_pb2
    from coordinator.control_messages import from_message
    from coordinator.report import describe_checkpoint
    from coordinator.status import CheckpointStatus

    answer = call(
        lambda api, **how: api.MakeCheckpoint(control_pb2.MakeCheckpointRequest(), **how), timeout=wait
    )
    made = CheckpointStatus.model_validate(from_message(answer))
    print(made.model_dump_json() if json else describe_checkpoint(made))


@at_a_run
def invite(
    call: Call,
    name: Annotated[str, typer.Argument(help="Who is invited, as the dashboard shows it.")],
    expires: Annotated[str, typer.Option(help="How long the invitation is good for, e.g. 12h or 7d.")] = "7d",
    role: Annotated[str, typer.Option(help="peer, or coordinator for a further one.")] = "peer",
    machines: Annotated[int, typer.Option(min=1, help="How many machines may come with it.")] = 1,
    json: AsJson = False,
) -> None:
    """Print the line with which somebody may join a run that is by invitation; the token in it is a secret."""
    from coordinator import control_pb2

    wish = control_pb2.InviteRequest(
        name=name, role=role, seconds=duration_in_seconds(expires), machines=machines
    )
    answer = call(lambda api, **how: api.Invite(wish, **how))
    if json:
        print(_Invited(token=answer.token, join_line=answer.join_line).model_dump_json())
    else:
        print(answer.join_line)


@at_a_run
def evict(
    call: Call,
    peer: Annotated[str, typer.Argument(help="Name or peer id.")],
    reason: Annotated[str, typer.Option(help="Shown on the dashboard, and to the peer.")] = "",
    json: AsJson = False,
) -> None:
    """End a peer's admission: within a minute nobody averages with it or listens to it any more."""
    from coordinator import control_pb2
    from coordinator.control_messages import from_message
    from coordinator.status import PeerStatus

    wish = control_pb2.EvictRequest(peer=peer, reason=reason)
    evicted = PeerStatus.model_validate(from_message(call(lambda api, **how: api.Evict(wish, **how))))
    print(evicted.model_dump_json() if json else f"{evicted.name} ({evicted.peer_id}) was evicted")


@at_a_run
def pause(call: Call, json: AsJson = False) -> None:
    """Let everyone stop computing at one of the next global steps, and stay."""
    from coordinator import control_pb2

    answer = call(lambda api, **how: api.Pause(control_pb2.PauseRequest(), **how))
    _print_change(answer, json, "pauses")


@at_a_run
def resume(call: Call, json: AsJson = False) -> None:
    """Let a paused run go on."""
    from coordinator import control_pb2

    answer = call(lambda api, **how: api.Resume(control_pb2.ResumeRequest(), **how))
    _print_change(answer, json, "goes on")


@at_a_run
def finish(call: Call, json: AsJson = False) -> None:
    """End the run at one of the next global steps, with a checkpoint."""
    from coordinator import control_pb2

    answer = call(lambda api, **how: api.Finish(control_pb2.FinishRequest(), **how))
    _print_change(answer, json, "ends")


@at_a_run
def settings(call: Call, json: AsJson = False) -> None:
    """Show the settings that may change while the run goes on, and what is about to change."""
    from coordinator import control_pb2
    from coordinator.control_messages import settings_of

    plan = call(lambda api, **how: api.GetSettings(control_pb2.GetSettingsRequest(), **how))
    entries = [
        {"from_step": each.from_step, **settings_of(each.settings).model_dump()} for each in plan.changes
    ]
    if json:
        print(_Plan(version=plan.version, changes=entries).model_dump_json())
        return
    for entry in entries:
        words = ", ".join(f"{name} {value}" for name, value in entry.items() if name != "from_step")
        print(f"from step {entry['from_step']}: {words}")


@at_a_run
def set_(
    call: Call,
    values: Annotated[list[str], typer.Argument(help=f"KEY=VALUE; keys are {', '.join(CHANGEABLE)}.")],
    json: AsJson = False,
) -> None:
    """Change settings from one of the next global steps on, the same for all peers."""
    from coordinator import control_pb2

    request = control_pb2.ChangeSettingsRequest(**parse_settings(values))
    answer = call(lambda api, **how: api.ChangeSettings(request, **how))
    _print_change(answer, json, "has the new settings")


def parse_settings(words: list[str]) -> dict[str, Any]:
    """KEY=VALUE words as numbers by key; raises `BadInput`."""
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or key not in CHANGEABLE:
            raise BadInput(f"{word!r} is not KEY=VALUE with one of the keys {', '.join(CHANGEABLE)}")
        number = float if key == "learning_rate_scale" else int
        try:
            values[key] = number(text)
        except ValueError:
            kind = "a number" if number is float else "a whole number"
            raise BadInput(f"{key} must be {kind}, not {text!r}") from None
        if number is int and not -(2**63) <= values[key] < 2**63:
            raise BadInput(f"{key} cannot be {text}: it is out of range")
    return values


class _Invited(BaseModel):
    token: str
    join_line: str


class _Peers(BaseModel):
    peers: list[Any]


class _Checkpoints(BaseModel):
    checkpoints: list[Any]


class _Plan(BaseModel):
    version: int
    changes: list[dict[str, Any]]


class _Change(BaseModel):
    version: int
    from_step: int
    settings: dict[str, Any]


def _print_change(answer: Any, json: bool, words: str) -> None:
    from coordinator.control_messages import settings_of

    if json:
        values = settings_of(answer.settings).model_dump()
        print(_Change(version=answer.version, from_step=answer.from_step, settings=values).model_dump_json())
    else:
        print(f"{time.strftime('%H:%M:%S')} the run {words} from step {answer.from_step} on")
