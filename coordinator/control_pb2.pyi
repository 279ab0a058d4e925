from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetRunRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Run(_message.Message):
    __slots__ = ("run_id", "state", "global_step", "target_batch_size", "peers_online", "samples_per_second", "samples_total", "goodput", "train_loss", "heldout_loss", "peers", "checkpoints", "generated_at", "started_at", "target_steps", "samples_accumulated", "reason", "split", "join_line", "fingerprint", "paused", "settings_version")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    TARGET_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    PEERS_ONLINE_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    GOODPUT_FIELD_NUMBER: _ClassVar[int]
    TRAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    HELDOUT_LOSS_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    GENERATED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    TARGET_STEPS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_ACCUMULATED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    JOIN_LINE_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_VERSION_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    state: str
    global_step: int
    target_batch_size: int
    peers_online: int
    samples_per_second: float
    samples_total: int
    goodput: float
    train_loss: float
    heldout_loss: float
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    generated_at: float
    started_at: float
    target_steps: int
    samples_accumulated: int
    reason: str
    split: bool
    join_line: str
    fingerprint: str
    paused: bool
    settings_version: int
    def __init__(self, run_id: _Optional[str] = ..., state: _Optional[str] = ..., global_step: _Optional[int] = ..., target_batch_size: _Optional[int] = ..., peers_online: _Optional[int] = ..., samples_per_second: _Optional[float] = ..., samples_total: _Optional[int] = ..., goodput: _Optional[float] = ..., train_loss: _Optional[float] = ..., heldout_loss: _Optional[float] = ..., peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ..., checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ..., generated_at: _Optional[float] = ..., started_at: _Optional[float] = ..., target_steps: _Optional[int] = ..., samples_accumulated: _Optional[int] = ..., reason: _Optional[str] = ..., split: _Optional[bool] = ..., join_line: _Optional[str] = ..., fingerprint: _Optional[str] = ..., paused: _Optional[bool] = ..., settings_version: _Optional[int] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("peer_id", "name", "state", "device", "ranks", "samples_per_second", "samples_contributed", "global_step", "loss", "last_seen", "client_mode", "version", "hardware", "error", "share", "samples_accumulated", "partial_rounds", "failed_rounds", "reloads", "goodput", "handed_over", "taken_over", "devices")
    class ReloadsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_CONTRIBUTED_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    CLIENT_MODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_ACCUMULATED_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    FAILED_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    RELOADS_FIELD_NUMBER: _ClassVar[int]
    GOODPUT_FIELD_NUMBER: _ClassVar[int]
    HANDED_OVER_FIELD_NUMBER: _ClassVar[int]
    TAKEN_OVER_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    peer_id: str
    name: str
    state: str
    device: str
    ranks: int
    samples_per_second: float
    samples_contributed: int
    global_step: int
    loss: float
    last_seen: float
    client_mode: bool
    version: str
    hardware: str
    error: str
    share: float
    samples_accumulated: int
    partial_rounds: int
    failed_rounds: int
    reloads: _containers.ScalarMap[str, int]
    goodput: float
    handed_over: int
    taken_over: int
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    def __init__(self, peer_id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[str] = ..., device: _Optional[str] = ..., ranks: _Optional[int] = ..., samples_per_second: _Optional[float] = ..., samples_contributed: _Optional[int] = ..., global_step: _Optional[int] = ..., loss: _Optional[float] = ..., last_seen: _Optional[float] = ..., client_mode: _Optional[bool] = ..., version: _Optional[str] = ..., hardware: _Optional[str] = ..., error: _Optional[str] = ..., share: _Optional[float] = ..., samples_accumulated: _Optional[int] = ..., partial_rounds: _Optional[int] = ..., failed_rounds: _Optional[int] = ..., reloads: _Optional[_Mapping[str, int]] = ..., goodput: _Optional[float] = ..., handed_over: _Optional[int] = ..., taken_over: _Optional[int] = ..., devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("utilization", "memory", "power", "temperature")
    UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    POWER_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    utilization: float
    memory: float
    power: float
    temperature: float
    def __init__(self, utilization: _Optional[float] = ..., memory: _Optional[float] = ..., power: _Optional[float] = ..., temperature: _Optional[float] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("step", "path", "heldout_loss", "digest", "saved_at", "heldout_accuracy")
    STEP_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    HELDOUT_LOSS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SAVED_AT_FIELD_NUMBER: _ClassVar[int]
    HELDOUT_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    step: int
    path: str
    heldout_loss: float
    digest: str
    saved_at: float
    heldout_accuracy: float
    def __init__(self, step: _Optional[int] = ..., path: _Optional[str] = ..., heldout_loss: _Optional[float] = ..., digest: _Optional[str] = ..., saved_at: _Optional[float] = ..., heldout_accuracy: _Optional[float] = ...) -> None: ...

class ListPeersRequest(_message.Message):
    __slots__ = ("states",)
    STATES_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, states: _Optional[_Iterable[str]] = ...) -> None: ...

class ListPeersResponse(_message.Message):
    __slots__ = ("peers",)
    PEERS_FIELD_NUMBER: _ClassVar[int]
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    def __init__(self, peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ...) -> None: ...

class GetPeerRequest(_message.Message):
    __slots__ = ("peer",)
    PEER_FIELD_NUMBER: _ClassVar[int]
    peer: str
    def __init__(self, peer: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("period",)
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    period: float
    def __init__(self, period: _Optional[float] = ...) -> None: ...

class ListCheckpointsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints",)
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ...) -> None: ...

class GetSettingsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Settings(_message.Message):
    __slots__ = ("target_batch_size", "total_steps", "checkpoint_every_steps", "learning_rate_scale", "paused", "finish_at")
    TARGET_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_SCALE_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    FINISH_AT_FIELD_NUMBER: _ClassVar[int]
    target_batch_size: int
    total_steps: int
    checkpoint_every_steps: int
    learning_rate_scale: float
    paused: bool
    finish_at: int
    def __init__(self, target_batch_size: _Optional[int] = ..., total_steps: _Optional[int] = ..., checkpoint_every_steps: _Optional[int] = ..., learning_rate_scale: _Optional[float] = ..., paused: _Optional[bool] = ..., finish_at: _Optional[int] = ...) -> None: ...

class SettingsChange(_message.Message):
    __slots__ = ("version", "from_step", "settings")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FROM_STEP_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    version: int
    from_step: int
    settings: Settings
    def __init__(self, version: _Optional[int] = ..., from_step: _Optional[int] = ..., settings: _Optional[_Union[Settings, _Mapping]] = ...) -> None: ...

class SettingsPlan(_message.Message):
    __slots__ = ("version", "changes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    version: int
    changes: _containers.RepeatedCompositeFieldContainer[SettingsChange]
    def __init__(self, version: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[SettingsChange, _Mapping]]] = ...) -> None: ...

class MakeCheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FinishRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ChangeSettingsRequest(_message.Message):
    __slots__ = ("target_batch_size", "total_steps", "checkpoint_every_steps", "learning_rate_scale")
    TARGET_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_SCALE_FIELD_NUMBER: _ClassVar[int]
    target_batch_size: int
    total_steps: int
    checkpoint_every_steps: int
    learning_rate_scale: float
    def __init__(self, target_batch_size: _Optional[int] = ..., total_steps: _Optional[int] = ..., checkpoint_every_steps: _Optional[int] = ..., learning_rate_scale: _Optional[float] = ...) -> None: ...

class InviteRequest(_message.Message):
    __slots__ = ("name", "role", "seconds", "machines")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    MACHINES_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    seconds: float
    machines: int
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., seconds: _Optional[float] = ..., machines: _Optional[int] = ...) -> None: ...

class InviteResponse(_message.Message):
    __slots__ = ("token", "join_line")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    JOIN_LINE_FIELD_NUMBER: _ClassVar[int]
    token: str
    join_line: str
    def __init__(self, token: _Optional[str] = ..., join_line: _Optional[str] = ...) -> None: ...

class EvictRequest(_message.Message):
    __slots__ = ("peer", "reason")
    PEER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    peer: str
    reason: str
    def __init__(self, peer: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
