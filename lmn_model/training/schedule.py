"""When a training records a point of its curve, evaluates and saves a checkpoint."""

from __future__ import annotations

import time
from typing import NamedTuple

from lmn_model.training.runs.progress import Progress
from lmn_model.training.settings import TrainingSettings

CURVE_POINTS = 20
"""Points of the training curve in an epoch."""


class Due(NamedTuple):
    """What is to be done after a step."""

    end_epoch: bool
    stop: bool
    evaluate: bool
    save: bool
    record: bool


class Schedule:
    """Decides after each step what is due.

    Args:
        settings: steps and minutes between evaluations and checkpoints.
        steps_per_epoch: steps of an epoch.
    """

    def __init__(self, settings: TrainingSettings, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.record_every = max(1, steps_per_epoch // CURVE_POINTS)
        self._settings = settings
        self._saved_at = time.monotonic()

    def due(self, progress: Progress, stop: bool) -> Due:
        """What is due after the step that ``progress`` counted last; ``stop`` whether a signal came."""
        every = self._settings.eval_every
        end = progress.epoch_step == self.steps_per_epoch
        return Due(
            end_epoch=end,
            stop=stop,
            evaluate=end or (every is not None and progress.step % every == 0),
            # An evaluation within an epoch saves no state: a large memory with its moments is a gigabyte and more.
            save=end or stop or self._checkpoint_due(progress.step),
            record=end or progress.epoch_step % self.record_every == 0,
        )

    def saved(self) -> None:
        """A checkpoint was written: the minutes to the next count from now."""
        self._saved_at = time.monotonic()

    def _checkpoint_due(self, step: int) -> bool:
        every = self._settings.checkpoint_steps
        if every is not None and step % every == 0:
            return True
        return time.monotonic() - self._saved_at >= 60 * self._settings.checkpoint_minutes
