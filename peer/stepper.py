"""When a global step is made relative to micro-batches: between them, or beside them.

The training loop begins a step when it is due and asks for its report between micro-batches; which of the two a run
does, its spec says (`averaging.overlap`). A step that was not made gives its samples back.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future

from peer.accumulator import Accumulator, Contribution
from peer.global_step import GlobalStep, StepReport


class BlockingStepper:
    """Makes a step at once; nothing is computed meanwhile."""

    def __init__(self, global_step: GlobalStep, accumulator: Accumulator):
        self._global_step, self._accumulator = global_step, accumulator
        self._begun: tuple[Contribution, Future[StepReport | None]] | None = None

    @property
    def busy(self) -> bool:
        """Whether a step was begun whose report nobody has taken yet."""
        return self._begun is not None

    def begin(self) -> None:
        """Begin the step that is due with everything accumulated."""
        contribution, made = self._accumulator.take(), Future[StepReport | None]()
        self._begun = contribution, made
        self._start(contribution, made)

    def take_report(self, *, wait: bool = False) -> StepReport | None:
        """What came of the step that was begun, once; None if it was not made, or still goes on.

        :param wait: until it is over
        """
        if self._begun is None:
            return None
        contribution, made = self._begun
        if not (wait or made.done()):
            return None
        self._begun = None
        report = made.result()
        if report is None:
            self._accumulator.put_back(contribution)
        return report

    def _start(self, contribution: Contribution, made: Future[StepReport | None]) -> None:
        made.set_result(self._global_step.make(contribution))


class OverlappingStepper(BlockingStepper):
    """Makes a step in a thread of its own."""

    def _start(self, contribution: Contribution, made: Future[StepReport | None]) -> None:
        self._global_step.is_averaging_gradients = True
        arguments = (contribution, made)
        threading.Thread(target=self._make, args=arguments, name="global step", daemon=True).start()

    def _make(self, contribution: Contribution, made: Future[StepReport | None]) -> None:
        try:
            made.set_result(self._global_step.make(contribution))
        except BaseException as error:  # for the training loop, which waits for it
            made.set_exception(error)


def stepper_for(global_step: GlobalStep, accumulator: Accumulator) -> BlockingStepper:
    """As the run spec says."""
    kind = OverlappingStepper if global_step.overlaps else BlockingStepper
    return kind(global_step, accumulator)
