"""The run spec: one frozen, typed description of a whole run, with a content hash that every participant shows.

Written by the operator as TOML, published by the coordinator inside the run bundle; a peer has no configuration of
its own. Unknown keys, impossible values and missing files are errors that name the key and the fix.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_prep.length_schedule import LengthSchedule
from swarm.errors import BadInput

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LENGTH_MULTIPLE = 64  # tensor cores like it

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


def _run_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name):
        raise ValueError(
            "must be 1 to 41 lower-case Latin letters, digits and hyphens, and not begin with a hyphen"
        )
    return name


def _repository(name: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})?", name):
        raise ValueError('must be a repository of a model hub, "OWNER/NAME", or ""')
    return name


class _Section(BaseModel):
    # what is endless is no JSON, of which a spec's digest is made
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSpec(_Section):
    """Shape of LeanALBERT; the vocabulary's size comes from the tokenizer.

    :param hidden_size: width of the layers
    :param intermediate_size: width inside of their feed-forward part
    :param num_hidden_layers: that a token passes
    :param num_hidden_groups: groups of neighbouring layers; those of a group share one set of weights
    :param num_attention_heads: of each layer, each `hidden_size / num_attention_heads` wide
    :param embedding_size: width of the tokens' embeddings, which a matrix takes to `hidden_size`
    :param max_position_embeddings: longest text in tokens
    :param hidden_dropout_prob: share of the values dropped after embeddings and layers while training
    :param attention_probs_dropout_prob: share of the attention's weights dropped while training
    """

    hidden_size: Positive = 512
    intermediate_size: Positive = 2048
    num_hidden_layers: Positive = 12
    num_hidden_groups: Positive = 1
    num_attention_heads: Positive = 8
    embedding_size: Positive = 128
    max_position_embeddings: Positive = 2048
    hidden_dropout_prob: Share = 0.0
    attention_probs_dropout_prob: Share = 0.0

    @model_validator(mode="after")
    def _shapes_fit(self) -> ModelSpec:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must be a multiple of num_attention_heads")
        if self.num_hidden_layers % self.num_hidden_groups:
            raise ValueError("num_hidden_layers must be a multiple of num_hidden_groups")
        return self


class DataSpec(_Section):
    """Where the text comes from: `builtin`, a folder made by `data-prep` (relative to the spec's file), or a URL.

    Of a corpus folder the coordinator makes tokenizer, shards and held-out set itself, in memory; a folder that
    already has `tokenizer/`, `shards/` and `heldout.safetensors` (`data-prep shard` writes one) is taken as it is.
    Such a folder on an HTTP server that knows ranges is named by its URL: peers then read the shards from there.

    :param source: one of these
    :param vocab_size: tokens of the tokenizer that the coordinator makes; a prepared folder brings its own
    :param sequence_length: tokens of a sample
    :param sequence_length_start: tokens of a sample at global step 0, from which they grow
    :param sequence_length_warmup_steps: global steps until they have grown to `sequence_length`
    :param weights: share of the samples by source; all of them named by the shards' manifest. By size without it
    :param sentence_pairs: samples are two segments, and the model learns their order as well
    :param heldout_fraction: share of the documents, chosen by the run's seed, that nobody trains on; of text that the
        coordinator prepares itself, for a prepared folder brings its held-out set
    :param heldout_rows: samples at most that are cut from them, on which states and checkpoints are scored
    :param license: of the text, as the model hub names it, e.g. `cc-by-sa-4.0`; told in every checkpoint's model card
    """

    source: Annotated[str, Field(min_length=1)] = "builtin"
    vocab_size: Positive = 8192
    sequence_length: Annotated[int, Field(ge=8)] = 128
    sequence_length_start: Annotated[int, Field(ge=8)] | None = None
    sequence_length_warmup_steps: Annotated[int, Field(ge=0)] = 0
    weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    sentence_pairs: bool = False
    heldout_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.02
    heldout_rows: Positive = 256
    license: Annotated[str, Field(max_length=100)] = ""

    @model_validator(mode="after")
    def _text_can_be_drawn(self) -> DataSpec:
        if (self.sequence_length_start is None) != (self.sequence_length_warmup_steps == 0):
            raise ValueError("sequence_length_start and sequence_length_warmup_steps go together")
        if self.sequence_length_start is not None and self.sequence_length_start > self.sequence_length:
            raise ValueError("sequence_length_start must not exceed sequence_length")
        if self.weights and not any(self.weights.values()):
            raise ValueError("weights must not all be 0")
        return self

    @property
    def length_schedule(self) -> LengthSchedule:
        """Length of the samples at every global step."""
        start = self.sequence_length_start or self.sequence_length
        multiple = min(start, LENGTH_MULTIPLE)
        return LengthSchedule(start, self.sequence_length, self.sequence_length_warmup_steps, multiple)


class TrainingSpec(_Section):
    """LAMB (You et al., 2020) on batches of `target_batch_size` samples, linear warm-up and decay.

    :param target_batch_size: samples of all peers together that make a global step
    :param micro_batch_size: samples in one pass of a peer whose search for the fastest size has failed, and of every
        peer that `coordinator simulate` models; other peers take what their search has found
    :param total_steps: global steps of the run, at whose end the learning rate reaches zero
    :param warmup_steps: global steps in which it rises to `learning_rate`
    :param learning_rate: the highest
    :param betas: decay of LAMB's first and second moment per step
    :param eps: what it adds to the root of the second one
    :param weight_decay: of all parameters but biases and norms
    :param moment_bits: of each of its two moments; with 8 what newcomers fetch and checkpoints hold is half as large
    :param max_grad_norm: L2 norm of the averaged gradient of all parameters, above which it is scaled down to it
    """

    target_batch_size: Positive = 4096
    micro_batch_size: Positive = 8
    total_steps: Positive = 10_000
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    learning_rate: Annotated[float, Field(gt=0)] = 2.5e-3
    betas: tuple[Share, Share] = (0.9, 0.95)
    eps: Annotated[float, Field(gt=0)] = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    moment_bits: Literal[8, 32] = 32
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _steps_fit(self) -> TrainingSpec:
        if self.warmup_steps >= self.total_steps:
            raise ValueError("warmup_steps must be smaller than total_steps")
        return self


class AveragingSpec(_Section):
    """How peers average.

    :param matchmaking_time: seconds for which a round waits for peers that are expected and do not come; a group that
        is complete starts at once
    :param request_timeout: seconds for which a peer that asks to join a group waits for an answer
    :param next_chunk_timeout: seconds without a message after which the other side of an average, or of a download of
        the state, counts as gone
    :param allreduce_timeout: seconds that an average may take from the complete group on, or the round has failed
    :param download_timeout: seconds that fetching the whole state may take; a donor sends to nobody for longer
    :param gradient_compression: `8bit` sends what is small in 16 bits, and `low_rank` sends matrices as two factors of
        `rank` columns, for links on which 8 bits are too many
    :param rank: see there
    :param state_compression: of parameters that are re-averaged
    :param state_every: global steps from one re-averaging of the parameters to the next
    :param aggregation: of gradients; `centred_clipping` keeps a minority of peers from steering the run with gradients
        of ordinary size that point the wrong way, at some cost in quality
    :param overlap: peers go on computing while they average. What they compute meanwhile enters the next global step,
        although its gradient was taken at the parameters before this one: at most one step old
    """

    matchmaking_time: Seconds = 10.0
    request_timeout: Seconds = 3.0
    next_chunk_timeout: Seconds = 20.0
    allreduce_timeout: Seconds = 120.0
    download_timeout: Seconds = 600.0
    gradient_compression: Literal["none", "float16", "8bit", "low_rank"] = "8bit"
    rank: Positive = 32
    state_compression: Literal["none", "float16"] = "none"
    state_every: Positive = 1
    aggregation: Literal["mean", "centred_clipping"] = "mean"
    overlap: bool = False

    @model_validator(mode="after")
    def _timeouts_fit(self) -> AveragingSpec:
        if self.request_timeout >= self.matchmaking_time:
            raise ValueError("request_timeout must be smaller than matchmaking_time")
        if self.next_chunk_timeout >= self.allreduce_timeout:
            raise ValueError("next_chunk_timeout must be smaller than allreduce_timeout")
        if self.aggregation != "mean" and self.gradient_compression == "low_rank":
            raise ValueError(
                "centred_clipping clips gradients, not their factors: choose another compression"
            )
        return self


class LocalStepsSpec(_Section):
    """Peers train apart between global steps (DiLoCo: Douillard et al. 2023, arXiv:2311.08105).

    Each makes a LAMB step of its own every `batch_size` samples. When the swarm has `training.target_batch_size`, what
    everyone has moved is averaged, and a step of SGD with Nesterov momentum in that direction is the global step.
    `training.learning_rate` and its schedule, in global steps, are those of the local steps.

    :param batch_size: samples of a local step
    :param outer_learning_rate: how far the global step goes of what the peers have moved on average
    :param outer_momentum: decay of its momentum per global step
    """

    batch_size: Positive
    outer_learning_rate: Annotated[float, Field(gt=0, le=2)] = 0.7
    outer_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9


class LeaseSpec(_Section):
    """A peer is alive while its lease has not expired.

    :param period: seconds from one renewal to the next
    :param expiration: seconds for which a lease is valid
    """

    period: Seconds = 5.0
    expiration: Seconds = 20.0

    @model_validator(mode="after")
    def _survives_a_lost_renewal(self) -> LeaseSpec:
        if self.expiration < 3 * self.period:
            raise ValueError(
                "expiration must be at least 3 times period, or one lost renewal looks like a death"
            )
        return self


class CheckpointSpec(_Section):
    """What the coordinator copies from the swarm, and what of it stays on disk.

    :param every_steps: global steps from one checkpoint to the next
    :param keep: how many of the last ones stay, beside the first and the best by held-out loss
    :param keep_every: of all, every so many-th stays as well; 0: none
    :param follow_every_steps: global steps after which the state is copied between checkpoints, so that when every
        peer is gone the run goes on from there
    :param max_heldout_ratio: a state whose held-out loss is more than so many times that of the last good one is
        refused, by the coordinator and by newcomers
    :param timeout: seconds that judging, evaluating and writing a checkpoint may take, or it is given up
    :param publish: a repository of a model hub to upload each one to, e.g. `"owner/model"`
    """

    every_steps: Positive = 100
    keep: Annotated[int, Field(ge=1)] = 5
    keep_every: Annotated[int, Field(ge=0)] = 0
    follow_every_steps: Positive = 10
    max_heldout_ratio: Annotated[float, Field(gt=1)] = 1.5
    timeout: Seconds = 1800.0
    publish: Annotated[str, AfterValidator(_repository)] = ""


class RunSpec(_Section):
    """One collaborative training, wholly described.

    :param name: of the run, with which its id begins: lower-case letters, digits and `-`
    :param seed: of the first weights, the held-out documents and the order of the text
    :param admission: `invite`: only those whom `coordinator invite` has given a ticket take part
    :param local_steps: if given, peers make steps of their own between global ones

    >>> spec = RunSpec(name="demo")
    >>> spec.run_id.startswith("demo-")
    True
    """

    name: Annotated[str, AfterValidator(_run_name)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    admission: Literal["open", "invite"] = "open"
    model: ModelSpec = ModelSpec()
    data: DataSpec = DataSpec()
    training: TrainingSpec = TrainingSpec()
    averaging: AveragingSpec = AveragingSpec()
    local_steps: LocalStepsSpec | None = None
    leases: LeaseSpec = LeaseSpec()
    checkpoints: CheckpointSpec = CheckpointSpec()

    @model_validator(mode="after")
    def _rows_fit_the_model(self) -> RunSpec:
        if self.data.sequence_length > self.model.max_position_embeddings:
            raise ValueError("data.sequence_length must not exceed model.max_position_embeddings")
        return self

    @model_validator(mode="after")
    def _local_steps_fit(self) -> RunSpec:
        if self.local_steps is None:
            return self
        if self.averaging.overlap:
            raise ValueError("local_steps and averaging.overlap do not go together: leave one out")
        if self.local_steps.batch_size > self.training.target_batch_size:
            raise ValueError("local_steps.batch_size must not exceed training.target_batch_size")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of this spec, in hex."""
        return hashlib.sha256(self.canonical_json()).hexdigest()

    @property
    def run_id(self) -> str:
        """Name of the run inside the swarm; differs whenever anything in the spec differs."""
        return f"{self.name}-{self.digest[:12]}"

    def canonical_json(self) -> bytes:
        """The same bytes for the same spec on every machine."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()

    def learning_rate_at(self, step: int, total_steps: int | None = None) -> float:
        """Learning rate of the update that leads from global step `step` to `step + 1`: warm-up, then linear decay.

        :param total_steps: where it reaches zero, by default the spec's
        """
        training = self.training
        last = training.total_steps if total_steps is None else total_steps
        if step < training.warmup_steps:
            return training.learning_rate * (step + 1) / training.warmup_steps
        remaining = max(0, last - step) / (last - training.warmup_steps)
        return training.learning_rate * remaining


def load_spec(path: Path) -> RunSpec:
    """Read and validate a TOML run spec; raises `BadInput` with one line naming the key and what it expects."""
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except FileNotFoundError:
        raise BadInput(
            f"run spec {path} does not exist: give the path of a TOML file, e.g. examples/demo.toml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"run spec {path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"run spec {path} is not valid TOML: {error}") from None
    return parse_spec(values, origin=str(path))


def parse_spec(values: dict[str, Any], *, origin: str) -> RunSpec:
    """Validate the values of a run spec that came from `origin`; raises `BadInput`."""
    try:
        return RunSpec.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"{origin}: {'; '.join(_explain(detail) for detail in error.errors()[:3])}") from None


def _explain(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown key `{key}`: {_nearest_keys(detail['loc'])}"
    if detail["type"] in ("model_type", "dict_type"):
        return f"`{key}`: must be a table, [{key}]"
    message = detail["msg"].removeprefix("Value error, ")
    return f"`{key}`: {message}" if key else message


def _nearest_keys(location: tuple[Any, ...]) -> str:
    """Suggest what the unknown key at `location` may have meant."""
    import difflib

    section: Any = RunSpec
    for part in location[:-1]:
        kind = section.model_fields[part].annotation
        section = next(one for one in (kind, *get_args(kind)) if hasattr(one, "model_fields"))  # or None
    known = list(section.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known keys here are {', '.join(known)}"
