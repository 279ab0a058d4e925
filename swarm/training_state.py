"""The state that all peers of a run share: model, optimizer and global step, as a flat list of fp32 tensors.

Everything is built from the run spec alone, with the spec's seed, so two participants start bit-equal; what travels
between machines is tensors and the step, never hyperparameters.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

import torch

from model import Lamb, LeanAlbertConfig, LeanAlbertForPreTraining
from model.parameter_groups import parameter_groups
from swarm.spec import RunSpec


def build_model(spec: RunSpec, *, vocab_size: int, pad_token_id: int) -> LeanAlbertForPreTraining:
    """LeanALBERT of this spec, initialised from its seed: bit-equal in every process."""
    config = LeanAlbertConfig(vocab_size=vocab_size, pad_token_id=pad_token_id, **spec.model.model_dump())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        return LeanAlbertForPreTraining(config)


class TrainingState:
    """Model, optimizer and global step of one participant.

    Every method that changes or reads tensors takes the lock, because newcomers ask for the state at any time.

    :param device: where the model lives; the optimizer lives with it
    """

    def __init__(self, spec: RunSpec, model: LeanAlbertForPreTraining, device: torch.device | None = None):
        self.spec = spec
        self.model = model.to(device or torch.device("cpu"))
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        training = spec.training
        self.optimizer = Lamb(
            parameter_groups(self.model, training.weight_decay),
            lr=0.0,
            betas=training.betas,
            eps=training.eps,
            max_grad_norm=training.max_grad_norm,
        )
        self.step = 0
        self.lock = threading.RLock()
        self.optimizer.init_state()

    @property
    def shapes(self) -> list[torch.Size]:
        """Shapes of `tensors()`, in order."""
        return [tensor.shape for tensor in self._tensors()]

    def tensors(self) -> tuple[int, list[torch.Tensor]]:
        """(global step, fp32 CPU copies): parameters first, then the optimizer's moments in a fixed order."""
        with self.lock, torch.no_grad():
            return self.step, [tensor.detach().to("cpu", torch.float32, copy=True) for tensor in self._tensors()]

    def load(self, step: int, tensors: Sequence[torch.Tensor]) -> None:
        """Take over a state made by `tensors()`; raises ValueError if it does not fit."""
        own = self._tensors()
        if [tensor.shape for tensor in own] != [tensor.shape for tensor in tensors]:
            raise ValueError("the state does not have the shapes of this run's model and optimizer")
        with self.lock, torch.no_grad():
            for target, source in zip(own, tensors, strict=True):
                target.copy_(source)
            self.optimizer.set_step(step)
            self.step = step

    def apply_gradients(self, gradients: Sequence[torch.Tensor]) -> None:
        """One global step: LAMB with these mean gradients at the learning rate of the current step."""
        with self.lock:
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient.to(parameter.device, parameter.dtype)
            for group in self.optimizer.param_groups:
                group["lr"] = self.spec.learning_rate_at(self.step)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1

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

    def _tensors(self) -> list[torch.Tensor]:
        moments = [
            value
            for parameter in self.parameters
            for _name, value in sorted(self.optimizer.state[parameter].items())
            if isinstance(value, torch.Tensor)
        ]
        return [*self.parameters, *moments]


def state_digest(step: int, tensors: Sequence[torch.Tensor]) -> str:
    """SHA-256 over the step and the bytes of all tensors, in hex."""
    digest = hashlib.sha256(str(step).encode())
    for tensor in tensors:
        digest.update(tensor.contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
