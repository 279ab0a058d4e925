"""The state that all peers of a run share: model, optimizer and global step, as a flat list of tensors.

Everything is built from the run spec alone, with the spec's seed, so two participants start bit-equal; what travels
between machines is tensors and the step, never hyperparameters.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from model import Lamb, LeanAlbertNetwork, LeanAlbertShape, parameter_groups
from model.lamb_state import check_state
from swarm.settings import SettingsBook
from swarm.snapshot import Layout, Snapshot
from swarm.spec import RunSpec

WITHOUT_PAIRS_UNTRAINED = ("albert.pooler.", "sop_classifier.")


def build_model(spec: RunSpec, *, vocab_size: int, pad_token_id: int) -> LeanAlbertNetwork:
    """LeanALBERT of this spec, initialised from its seed: bit-equal in every process.

    Without sentence pairs the pooler and the sentence-order head are frozen: masked LM does not train them, LAMB's
    weight decay would shrink what has no gradient, and frozen parameters need not travel.
    """
    shape = LeanAlbertShape(vocab_size=vocab_size, pad_token_id=pad_token_id, **spec.model.model_dump())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = LeanAlbertNetwork(shape)
    for name, parameter in model.named_parameters():
        if name.startswith(WITHOUT_PAIRS_UNTRAINED) and not spec.data.sentence_pairs:
            parameter.requires_grad_(False)
    return model


class TrainingState:
    """Model, optimizer and global step of one participant.

    Every method that changes or reads tensors takes the lock, because newcomers ask for the state at any time.

    The `parameters` that the optimizer updates are the model's own. With `averaging.overlap` they are a copy on the
    host, so that they can change while the model computes; the model takes them over in `refresh_model`. So they are
    with `local_steps`, where the model moves by itself, and the optimizer is the outer one.

    :param device: where the model lives; the optimizer lives with its parameters
    """

    def __init__(self, spec: RunSpec, model: LeanAlbertNetwork, device: torch.device | None = None):
        self.spec = spec
        self.settings = SettingsBook(spec)
        self.model = model
        self.model.to(device or torch.device("cpu"))
        self.model_parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._is_apart = spec.averaging.overlap or spec.local_steps is not None
        self.parameters = self._copy_for_optimizer() if self._is_apart else self.model_parameters
        self.optimizer = self._new_optimizer()
        self.step = 0
        self.branch = ""
        self.lock = threading.RLock()
        self._version = self._version_of_model = 0
        # not while the parameters of a new step still differ between peers by what codecs lose
        self.settled = threading.Event()
        self.settled.set()
        self._allocate_moments()

    @property
    def model_version(self) -> int:
        """Another number whenever the model computes with other parameters."""
        return self._version_of_model if self._is_apart else self._version

    @property
    def model_is_old(self) -> bool:
        """Whether there are newer parameters than those that the model computes with."""
        return self._version != self.model_version

    def refresh_model(self) -> None:
        """Let the model compute with the newest parameters; not while it computes."""
        if self.model_is_old:
            self.reset_model()

    def reset_model(self) -> None:
        """Let the model compute with these parameters, whatever it has done to its own."""
        if not self._is_apart:
            return
        with self.lock, torch.no_grad():
            for own, newest in zip(self.model_parameters, self.parameters, strict=True):
                own.copy_(newest)
            self._version_of_model = self._version

    @property
    def layouts(self) -> list[Layout]:
        """Of a snapshot's tensors, in order."""
        return [Layout.of(tensor) for tensor in self._tensors()]

    @contextmanager
    def held(self) -> Iterator[Snapshot]:
        """The state itself, wherever its tensors are, which does not change within the context."""
        with self.lock, torch.no_grad():
            yield Snapshot(self.step, self.branch, [tensor.detach() for tensor in self._tensors()])

    @contextmanager
    def held_for_others(self, patience: float) -> Iterator[Snapshot]:
        """The same for somebody who takes it over: after the step in hand is settled, if that takes not too long."""
        self.settled.wait(patience)
        with self.held() as state:
            yield state

    def snapshot(self) -> Snapshot:
        """A copy: parameters first, then the optimizer's moments in a fixed order, on the CPU."""
        with self.held() as state:
            return state._replace(tensors=[tensor.to("cpu", copy=True) for tensor in state.tensors])

    def load(self, snapshot: Snapshot) -> None:
        """Take over a snapshot; raises ValueError, and changes nothing, if it cannot be a state of this run."""
        self.check(snapshot)
        with self.lock, torch.no_grad():
            for target, source in zip(self._tensors(), snapshot.tensors, strict=True):
                target.copy_(source)
            self.step, self.branch = snapshot.step, snapshot.branch
            self._version += 1
            self.refresh_model()

    def check(self, snapshot: Snapshot) -> None:
        """Raise ValueError if its tensors cannot be a state of this run: layout, or moments that LAMB cannot have."""
        if self.layouts != [Layout.of(tensor) for tensor in snapshot.tensors]:
            raise ValueError("the state does not have the shapes and types of this run's model and optimizer")
        if not isinstance(self.optimizer, Lamb):  # what SGD keeps may be anything
            return
        moments = iter(snapshot.tensors[len(self.parameters) :])
        for name, parameter in self._named_parameters():
            own = self.optimizer.state[parameter]
            check_state({key: next(moments) for key in sorted(own)}, own, name)

    def apply_gradients(self, gradients: Sequence[torch.Tensor], branch: str) -> None:
        """One global step: the optimizer's with these mean gradients at the learning rate of the current step.

        :param branch: of the round that averaged them
        """
        with self.lock:
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient.to(parameter.device, parameter.dtype)
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step, self.branch = self.step + 1, branch
            self._version += 1

    def copy_parameters_to(self, buffers: Sequence[torch.Tensor]) -> None:
        """Copy the parameters into fp32 CPU buffers of the same shapes."""
        with self.lock, torch.no_grad():
            for buffer, parameter in zip(buffers, self.parameters, strict=True):
                buffer.copy_(parameter)

    def copy_parameters_from(self, buffers: Sequence[torch.Tensor]) -> None:
        """Overwrite the parameters by averaged ones."""
        with self.lock, torch.no_grad():
            for buffer, parameter in zip(buffers, self.parameters, strict=True):
                parameter.copy_(buffer)
            self._version += 1

    def named_moments(self) -> dict[str, torch.Tensor]:
        """The optimizer's tensors by `parameter name/state name`, for a checkpoint."""
        return {
            f"{name}/{key}": value
            for name, parameter in self._named_parameters()
            for key, value in sorted(self.optimizer.state[parameter].items())
        }

    def load_named(
        self, step: int, branch: str, weights: Mapping[str, torch.Tensor], moments: Mapping[str, torch.Tensor]
    ) -> None:
        """Take over a checkpoint's weights (the model's state dict, tied ones once) and moments; raises KeyError."""
        own = self.named_moments()
        if missing := sorted(set(own) - set(moments)):
            raise KeyError(f"optimizer state lacks {missing[0]}")
        with self.lock, torch.no_grad():
            _missing, unexpected = self.model.load_state_dict(dict(weights), strict=False)
            for name, parameter in self._named_parameters():
                parameter.copy_(weights[name])
            if unexpected:
                raise KeyError(f"weights have an unknown {unexpected[0]}")
            for name, moment in own.items():
                moment.copy_(moments[name])
            self.step, self.branch = step, branch
            self._version += 1
            self.refresh_model()

    def _named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """The optimizer's parameters by the names that they have in the model."""
        names = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        return list(zip(names, self.parameters, strict=True))

    def _copy_for_optimizer(self) -> list[torch.nn.Parameter]:
        return [
            torch.nn.Parameter(parameter.detach().to("cpu", torch.float32, copy=True))
            for parameter in self.model_parameters
        ]

    def _learning_rate(self) -> float:
        local_steps = self.spec.local_steps
        if local_steps is not None:
            return local_steps.outer_learning_rate
        return self.settings.learning_rate_at(self.step)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        local_steps = self.spec.local_steps
        if local_steps is None:
            return self._new_lamb()
        momentum = local_steps.outer_momentum
        return torch.optim.SGD(self.parameters, lr=0.0, momentum=momentum, nesterov=True)

    def _new_lamb(self) -> Lamb:
        training = self.spec.training
        optimizers_own = dict(zip(map(id, self.model_parameters), self.parameters, strict=True))
        groups = parameter_groups(self.model, training.weight_decay)
        for group in groups:
            group["params"] = [optimizers_own[id(parameter)] for parameter in group["params"]]
        return Lamb(
            groups,
            lr=0.0,
            betas=training.betas,
            eps=training.eps,
            max_grad_norm=training.max_grad_norm,
            state_bits=training.moment_bits,
        )

    def _allocate_moments(self) -> None:
        # LAMB only allocates state when every gradient is exactly zero, and so does SGD at a learning rate of zero
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _tensors(self) -> list[torch.Tensor]:
        return [*self.parameters, *self.named_moments().values()]


def state_digest(snapshot: Snapshot) -> str:
    """SHA-256 over the step and the bytes of all tensors, in hex."""
    digest = hashlib.sha256(str(snapshot.step).encode())
    for tensor in snapshot.tensors:
        digest.update(tensor.contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
