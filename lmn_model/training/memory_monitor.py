"""Monitoring and maintenance of a memory in training: reads are counted and reported, unread sub-keys are moved."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from lmn_model.ctr.model import CTRModel
from lmn_model.modules.reseeding import reseed
from lmn_model.modules.usage import MemoryUsage
from lmn_model.training.optimizers import Optimizers
from lmn_model.training.reporting.log_messages import usage_in_words
from lmn_model.training.reporting.plots import plot_memory_usage, usage_axes
from lmn_model.training.settings import Settings

logger = logging.getLogger("lmn")


class MemoryMonitor:
    """Counts the reads of a model's memory, if it has one and the settings want it; without counts it does nothing.

    Args:
        model: on ``device``; its memory counts from here on.
        settings: of the run.
        device: where the model runs.
        recent_steps: steps between two points of the curve, which "recent" reads are of.

    Attributes:
        usage: the counts, which belong to the state of the run; None if nothing is counted.
    """

    def __init__(self, model: CTRModel, settings: Settings, device: torch.device, recent_steps: int) -> None:
        self.usage: MemoryUsage | None = None
        self._model, self._layer = model, model.memory_block()
        self._reports, self._reseed_every = settings.training.memory_usage, settings.training.reseed_every
        self._recent_steps = recent_steps
        if self._layer is not None and settings.counts_reads():
            by_sub_key = self._reseed_every is not None
            self.usage = MemoryUsage(self._layer.keys.shape[2], self._layer.heads, device, by_sub_key=by_sub_key)
            self._layer.usage = self.usage

    def begin_epoch(self) -> None:
        """Count anew."""
        if self.usage is not None:
            self.usage.reset()

    def after_step(self, step: int, optimizers: Optimizers) -> None:
        """Count a step and, where it is due, move sub-keys that no query reads.

        Args:
            step: number of the step, for the log.
            optimizers: of the model; what they hold for moved sub-keys and their slots starts anew.
        """
        if self.usage is None or self._layer is None:
            return
        self.usage.advance()
        if self._reseed_every is not None and self.usage.step % self._reseed_every == 0:
            moved = int(reseed(self._layer, self.usage, optimizers).sub_keys.sum())
            if moved:
                logger.info("step %d: %d unread sub-keys were moved", step, moved)

    def curve_point(self) -> dict[str, float] | None:
        """The share of slots read in this epoch and recently; None if it is not reported."""
        if self.usage is None or not self._reports:
            return None
        return {"coverage": self.usage.coverage(), "recent_coverage": self.usage.coverage(self._since)}

    def summary(self) -> dict[str, Any] | None:
        """What ``metrics.json`` has of the reads, see ``MemoryUsage.summary``; None if it is not reported."""
        return self.usage.summary(since=self._since) if self.usage is not None and self._reports else None

    def log(self, summary: dict[str, Any]) -> None:
        """Log a :meth:`summary` as a sentence."""
        if self.usage is not None:
            recent = min(self.usage.step, self._recent_steps)
            logger.info("memory: %s", usage_in_words(summary, self.usage.sub_keys**2, recent))

    def plot(self, curve: list[dict[str, Any]], path: Path) -> None:
        """Draw the reads and, from the points of ``curve``, their share over the steps, if they are reported."""
        if self.usage is not None and self._reports:
            plot_memory_usage(self.usage, curve, path, usage_axes(self._model))

    @property
    def _since(self) -> int:
        return 0 if self.usage is None else self.usage.step - self._recent_steps
