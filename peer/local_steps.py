"""Local steps between global ones: instead of gradients a peer accumulates how far it has moved by itself.

DiLoCo (Douillard et al. 2023, arXiv:2311.08105): the inner optimizer is the run's LAMB, its moments stay with the peer;
what goes into a global step is the parameters of the last global step less our own, weighted by samples where the paper
takes the plain mean, because volunteers' machines differ.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from model.lamb import Lamb, parameter_groups
from peer.accumulator import Accumulator, Contribution
from peer.loss_scale import LossScale
from swarm.spec import LocalStepsSpec
from swarm.training_state import TrainingState

logger = logging.getLogger(__name__)

# samples, those of them taken over, sum of losses, and how far others had moved
_Held = tuple[int, int, float, "list[torch.Tensor] | None"]


class LocalSteps(Accumulator):
    """An accumulator whose model moves with every `batch_size` samples."""

    grows = True

    def __init__(self, state: TrainingState, spec: LocalStepsSpec, scale: LossScale | None = None):
        super().__init__(state.model_parameters, scale)
        self._state, self._spec = state, spec
        training = state.spec.training
        self._optimizer = Lamb(
            parameter_groups(state.model, training.weight_decay),
            lr=0.0,
            betas=training.betas,
            eps=training.eps,
            max_grad_norm=training.max_grad_norm,
            state_bits=training.moment_bits,
        )
        self._in_batch = 0
        # how far departed peers had moved, times their samples
        self._moved_by_others: list[torch.Tensor] | None = None
        self._before_taking: _Held = (0, 0, 0.0, None)

    def add(self, loss: torch.Tensor, samples: int) -> bool:
        """Backpropagate a micro-batch, and make the local step if its batch is complete."""
        if not super().add(loss, samples):
            return False
        self._in_batch += samples
        if self._in_batch >= self._spec.batch_size:
            self._step()
        return True

    def take(self) -> Contribution:
        """How far we have moved since the last global step, times samples; a batch that has begun is a smaller step."""
        if self._in_batch:
            self._step()
        own = self.samples - self.samples_taken_over
        with torch.no_grad():
            sums = [
                (start - now.to(start.device)).mul_(own)
                for start, now in zip(self._state.parameters, self._parameters, strict=True)
            ]
            for total, others in zip(sums, self._moved_by_others or (), strict=False):
                total.add_(others)
        taken = Contribution(sums, self.samples, self.samples_taken_over, self.loss_sum)
        held = self.samples, self.samples_taken_over, self.loss_sum, self._moved_by_others
        self._before_taking = held
        self.samples = self.samples_taken_over = 0
        self.loss_sum, self._moved_by_others = 0.0, None
        return taken

    def put_back(self, taken: Contribution) -> None:
        """Go on from where we were; start again from the last global step if that was not finite."""
        if taken.samples:
            self.samples, self.samples_taken_over, self.loss_sum, self._moved_by_others = self._before_taking
        else:
            self.reset()

    def own_mean(self) -> list[torch.Tensor] | None:
        """How far we have moved since the last global step; None before the first local step."""
        with torch.no_grad():
            moved = [
                start - now.to(start.device)
                for start, now in zip(self._state.parameters, self._parameters, strict=True)
            ]
        return moved if any(bool(tensor.any()) for tensor in moved) else None

    def take_over(self, mean: Sequence[torch.Tensor], samples: int, loss_sum: float) -> None:
        """Add how far another peer has moved; our own model stays where it is."""
        if self._moved_by_others is None:
            self._moved_by_others = [torch.zeros_like(start) for start in self._state.parameters]
        with torch.no_grad():
            for total, moved in zip(self._moved_by_others, mean, strict=True):
                total.add_(moved, alpha=samples)
        self.samples += samples
        self.samples_taken_over += samples
        self.loss_sum += loss_sum

    def reset(self) -> None:
        """Go back to the parameters of the last global step."""
        super().reset()
        self._in_batch = 0
        self._moved_by_others = None
        self._state.reset_model()

    def _step(self) -> None:
        """LAMB with the mean gradient of the batch; at a lower rate if the batch is not complete."""
        complete = min(1.0, self._in_batch / self._spec.batch_size)
        rate = complete * self._state.settings.learning_rate_at(self._state.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.div_(self._in_batch)
        try:
            self._optimizer.step()
        except FloatingPointError as error:
            logger.warning("left out a local step: %s", error)
        self._optimizer.zero_grad(set_to_none=True)
        self._in_batch = 0
