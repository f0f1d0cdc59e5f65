"""``metrics.json`` of a run, and the plots drawn with it.

Results repeat to the last digit on one machine; what does not, such as seconds and memory, is kept apart from them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch

from lmn_model.ctr.model import CTRModel
from lmn_model.data import Dataset
from lmn_model.files import write_json
from lmn_model.training.evaluation.rates_baseline import baseline_metrics
from lmn_model.training.memory_monitor import MemoryMonitor
from lmn_model.training.reporting.environment import describe_environment, peak_memory_mib
from lmn_model.training.reporting.plots import plot_learning_curves
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.runs.progress import Progress
from lmn_model.training.settings import Settings

DRAWING_SECONDS = 10
"""The learning curves are drawn at an evaluation if the last drawing is so old."""


class MetricsFile:
    """Writes the metrics of a run as it proceeds.

    Args:
        folder: of the run.
        settings: of the run.
        dataset: the samples, whose description and baseline are part of the results.
        warnings: about the data, a sentence each.
        model: whose parameters are counted.
        memory: draws the reads of its memory.
        device: where the model runs.

    Raises:
        MetricError: the validation split has one class only.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: Settings,
        dataset: Dataset,
        warnings: list[str],
        model: CTRModel,
        memory: MemoryMonitor,
        device: torch.device,
    ) -> None:
        self._folder, self._settings, self._dataset, self._device = folder, settings, dataset, device
        self._warnings, self._model, self._memory = warnings, model, memory
        self._baseline: dict[str, Any] = {"valid": baseline_metrics(dataset.train, [], dataset.valid), "test": None}
        self._environment = describe_environment(device)
        self._drawn_at = -math.inf

    def add_test_baseline(self) -> dict[str, float | None]:
        """Score the rates of items and users on the test split too, and return what they reach."""
        data = self._dataset
        found = self._baseline["test"] = baseline_metrics(data.train, [data.valid], data.test)
        return found

    def write(self, status: str, progress: Progress, final: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Draw the plots, unless that was done a moment ago and the run continues, and write the file.

        Args:
            status: ``"running"``, ``"interrupted"`` or ``"finished"``.
            progress: of the run.
            final: the best evaluation and the test metrics of a finished run.

        Returns:
            What the file holds.
        """
        metrics: dict[str, Any] = {
            "status": status,
            "results": {
                **(final or {}),
                "epochs": progress.epoch,
                "steps": progress.step,
                "train_rows": progress.train_rows,
                "stopped_early": progress.stopped,
                "parameters": self._model.parameter_counts(),
                "data": self._dataset.describe(),
                "warnings": self._warnings,
                "baseline": self._baseline,
                "evaluations": progress.evaluations,
                "curve": progress.curve,
            },
            "timing": {
                "train_seconds": round(progress.train_seconds, 3),
                "samples_per_second": round(progress.train_rows / progress.train_seconds, 1),
                "peak_memory_mib": peak_memory_mib(self._device),
            },
            "environment": self._environment,
            "settings": self._settings.to_dict(),
        }
        # Drawn first: a reader of "finished" finds every file. Not at each of many quick evaluations.
        if status != "running" or time.monotonic() - self._drawn_at >= DRAWING_SECONDS:
            plot_learning_curves(metrics["results"], self._folder.curves)
            self._memory.plot(progress.curve, self._folder.memory_usage)
            self._drawn_at = time.monotonic()
        write_json(self._folder.metrics, metrics)
        return metrics
