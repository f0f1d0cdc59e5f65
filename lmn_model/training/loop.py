"""The loop of a training: epochs of steps, and after each step the checks, evaluations and checkpoints that are due.

Everything that the next step depends on is either a pure function of the settings (the order of the rows follows from
seed and epoch) or in the checkpoint: weights, optimiser state, the generator's state, the position and the running
sums.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from typing import Any

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from lmn_model.ctr import training_losses
from lmn_model.data import Batch, BatchLoader, Dataset
from lmn_model.signals import stop_requests
from lmn_model.training.build import build_model
from lmn_model.training.divergence import StepWatch, check_weights
from lmn_model.training.errors import TrainingError, TrainingInterrupted
from lmn_model.training.evaluation.metrics import MetricError, auc, click_metrics, log_loss
from lmn_model.training.evaluation.new_events import EventWriter
from lmn_model.training.evaluation.scoring import evaluate_split
from lmn_model.training.memory_monitor import MemoryMonitor
from lmn_model.training.metrics_file import MetricsFile
from lmn_model.training.optimizers import Optimizers
from lmn_model.training.reporting.log_messages import (
    EpochReport,
    evaluation_in_words,
    metrics_in_words,
    parameters_in_words,
)
from lmn_model.training.runs.checkpoint import CheckpointError
from lmn_model.training.runs.fingerprint import data_fingerprint
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.runs.state import RunState, load_model, save_model
from lmn_model.training.schedule import Due, Schedule
from lmn_model.training.settings import Settings

CUDA_CHECK_STEPS = 16
"""On CUDA :class:`StepWatch` is read every so many steps, for reading waits for the device; on the CPU in each step."""

logger = logging.getLogger("lmn")


class Trainer:
    """One run: model, optimisers and position, and the loop over the epochs.

    Args:
        settings: of the run, with all sizes set, see :mod:`lmn_model.training.default_sizes`.
        dataset: the samples.
        folder: open for writing.
        device: where the model runs.

    Attributes:
        state: model, optimisers and position.
        identity: what a checkpoint must agree with to be of this run.
        warnings: about the data, a sentence each.

    Raises:
        ValueError: a size is not set.
    """

    def __init__(self, settings: Settings, dataset: Dataset, folder: RunFolder, device: torch.device) -> None:
        if names := settings.unset():
            raise ValueError(f"Trainer: {', '.join(names)} must be set, got None")
        self.settings, self.dataset, self.folder, self.device = settings, dataset, folder, device
        self.identity = {
            "features": dataset.features.to_dict(),
            "data": data_fingerprint(dataset),
            "settings": settings.decisive(),
        }
        self._schedule = Schedule(settings.training, -(-len(dataset.train) // settings.training.batch_size))
        model = build_model(dataset.features, settings.model).to(device)
        self._memory = MemoryMonitor(model, settings, device, self._schedule.record_every)
        self.state = RunState(model, Optimizers(model, settings.training), device, self._memory.usage)
        self._watch = StepWatch(model, dataset.features.numeric, device)
        self.warnings = dataset.warnings()
        self._metrics = MetricsFile(folder, settings, dataset, self.warnings, model, self._memory, device)
        self._clock = time.perf_counter()

    def restore(self) -> None:
        """Return to the last checkpoint.

        Raises:
            CheckpointError: the file is damaged, or of another model or other data.
        """
        self.state.load(self.folder.last, self.identity)
        progress = self.state.progress
        logger.info("resumed at epoch %d, step %d of it", progress.epoch + 1, progress.epoch_step)

    def run(self, test: bool = True) -> dict[str, Any]:
        """Train to the end, then, if ``test``, evaluate the best model on the test split; see :func:`train`."""
        logger.info("data: %s", self.dataset.summary())
        layer = self.state.model.memory_block()
        slots = None if layer is None else layer.keys.shape[2] ** 2
        logger.info("model: %s", parameters_in_words(self.state.model.parameter_counts(), slots))
        with stop_requests() as stop, logging_redirect_tqdm([logger]):
            while not self._is_done():
                self._run_epoch(stop)
            if stop.is_set():  # the signal came in the last step or its evaluation; all is saved
                self._metrics.write("interrupted", self.state.progress)
                raise self._interrupted("before the test")
        return self._finish(test)

    def _is_done(self) -> bool:
        return self.state.progress.stopped or self.state.progress.epoch >= self.settings.training.epochs

    def _run_epoch(self, stop: threading.Event) -> None:
        progress, training = self.state.progress, self.settings.training
        if progress.epoch_step == 0:
            self.state.optimizers.reset(self.state.model.begin_epoch())
            self._memory.begin_epoch()
        loader = BatchLoader(
            self.dataset.train,
            training.batch_size,
            order=training.order,
            seed=training.seed,
            epoch=progress.epoch,
            start=progress.epoch_step,
            new_events=self.settings.model.writes_new_events,
            writes=training.writes,
            feedback=self.settings.model.writes_feedback,
        )
        self.state.model.train()
        report = EpochReport(
            progress.epoch + 1, training.epochs, len(self.dataset.train), training.batch_size, progress.epoch_step
        )
        self._clock = time.perf_counter()
        with report, closing(iter(loader)) as batches:
            for batch in batches:
                self._step(batch.to(self.device))
                report.update(len(batch))
                if self._after_step(stop, report):
                    return

    def _step(self, batch: Batch) -> None:
        out = self.state.model(batch)
        loss, click_loss, memory_loss = training_losses(out, batch.label, self.settings.model.memory)
        loss.backward()
        self._watch.look(batch, loss)
        if self.device.type == "cpu":  # before the update, so that the weights stay as they were
            self._watch.check(f"at step {self.state.progress.step + 1}", self.folder.last)
        self.state.optimizers.step()
        self.state.model.write_profiles(batch)
        self._memory.after_step(self.state.progress.step + 1, self.state.optimizers)
        rows = len(batch)
        self.state.sums += (
            torch.stack((click_loss.detach(), memory_loss.detach(), torch.ones_like(click_loss))).double() * rows
        )
        self.state.recent.append((out.logits.detach(), batch.label))
        self.state.progress.epoch_step += 1
        self.state.progress.step += 1
        self.state.progress.train_rows += rows

    def _after_step(self, stop: threading.Event, report: EpochReport) -> bool:
        """Check, record, evaluate and save as is due; whether the epoch is over."""
        # The signal is read once: one that comes during an evaluation waits for the next step.
        due, step = self._schedule.due(self.state.progress, stop.is_set()), self.state.progress.step
        if self.device.type != "cpu" and (any(due) or step % CUDA_CHECK_STEPS == 0):
            self._watch.check(f"at or shortly before step {step}", self.folder.last)
        if due.record:
            self._record(report)
        if report.is_due():
            click_loss, _, rows = self.state.sums.tolist()
            report.log(click_loss / rows)
        if not (due.save or due.evaluate):
            return False
        # A finite loss does not show what the update after it did: without this, NaN weights could be saved as good.
        check_weights(self.state.model, f"at or shortly before step {step}", self.folder.last)
        self._pause_clock()
        self._evaluate_and_save(due)
        self._clock = time.perf_counter()
        return due.end_epoch or self.state.progress.stopped

    def _record(self, report: EpochReport) -> None:
        """Add a point to the curve."""
        logits, labels = (torch.cat(parts).cpu().numpy() for parts in zip(*self.state.recent, strict=True))
        self.state.recent.clear()
        point: dict[str, Any] = {"step": self.state.progress.step, "loss": log_loss(labels, logits), "auc": None}
        if 0 < labels.sum() < len(labels):
            point["auc"] = auc(labels, logits)
        if (reads := self._memory.curve_point()) is not None:
            point["memory"] = reads
        self.state.progress.curve.append(point)
        report.show(point["loss"], point["auc"])

    def _evaluate_and_save(self, due: Due) -> None:
        progress = self.state.progress
        if due.evaluate:
            self._evaluate()
        if due.end_epoch:
            progress.epoch, progress.epoch_step = progress.epoch + 1, 0
        if due.save or progress.stopped:
            self.state.save(self.folder.last, self.identity)
            self._schedule.saved()
        if due.evaluate:
            self._metrics.write("running", progress)
        if due.stop:
            self._metrics.write("interrupted", progress)
            raise self._interrupted(f"after step {progress.step}")

    def _evaluate(self) -> None:
        """Score the validation split, and keep the model if it is the best so far."""
        progress, training = self.state.progress, self.settings.training
        click_loss, memory_loss, rows = self.state.sums.tolist()
        self.state.sums.zero_()
        try:
            valid = evaluate_split(self.state.model, self.dataset.valid, training.batch_size, self.device)
        except MetricError as error:
            raise TrainingError(f"the validation split cannot be scored after step {progress.step}: {error}") from error
        evaluation = {
            "step": progress.step,
            "epoch": progress.epoch + 1,
            "train_loss": click_loss / rows,
            "memory_loss": memory_loss / rows if self.settings.model.has_memory else None,
            **valid,
        }
        if (reads := self._memory.summary()) is not None:
            evaluation["memory"] = reads
        # An epoch begins with an empty memory, so a lower score within it is no sign of a model that gets worse.
        empties = self.settings.model.has_memory or self.settings.model.writes_new_events
        counts = progress.epoch_step == self._schedule.steps_per_epoch or not empties
        is_best = progress.add_evaluation(evaluation, training.patience if counts else None)
        logger.info("%s", evaluation_in_words(evaluation, training.epochs, is_best))
        if reads is not None:
            self._memory.log(reads)
        if is_best:
            optimizers = self.state.optimizers if self.settings.model.writes_new_events else None
            save_model(self.folder.best, self.state.model, {**self.identity, "evaluation": evaluation}, optimizers)

    def _finish(self, test: bool) -> dict[str, Any]:
        """Take the best model, score the test split with it if ``test``, and write the results."""
        best = load_model(self.folder.best, self.state.model).get("evaluation")
        if best is None:
            raise CheckpointError(f"{self.folder.best}: holds no evaluation; it is not the best model of a run")
        found: dict[str, Any] = {"test": None}
        if test:
            try:
                found = self._test()
            except KeyboardInterrupt as stopped:
                raise self._interrupted("before the test was over") from stopped
            words = metrics_in_words(found["test"])
            logger.info("best at step %d by validation AUC; test split: %s", best["step"], words)
            if "test_while_writing" in found:
                words = metrics_in_words(found["test_while_writing"])
                logger.info("if the labels of the test split are written as they come: %s", words)
            rates = self._metrics.add_test_baseline()
            logger.info("item and user rates alone, without a model: %s", metrics_in_words(rates))
            for warning in self.warnings:
                if warning.startswith("test split"):
                    logger.warning("warning: %s", warning)
        return self._metrics.write("finished", self.state.progress, {"best": best, **found})

    def _test(self) -> dict[str, Any]:
        """Write the events before the test split to the memory of the best model, and score the split.

        A model that writes labels scores it once more while it writes those of the split, as the rates count them.
        """
        model, training, test = self.state.model, self.settings.training, self.dataset.test
        if not model.settings.writes_new_events:
            return {"test": evaluate_split(model, test, training.batch_size, self.device)}
        writer = EventWriter(self.folder.best, model, training, self.device)
        if events := writer.write(self.dataset):
            logger.info("%s events before the test split were written to the memory", f"{events:,}")
        found = {"test": evaluate_split(model, test, training.batch_size, self.device)}
        if model.settings.writes_feedback:
            found["test_while_writing"] = click_metrics(test.labels, writer.score_test(self.dataset), test.groups)
        return found

    def _interrupted(self, where: str) -> TrainingInterrupted:
        return TrainingInterrupted(f"stopped {where}; continue with: lmn train --resume {self.folder}")

    def _pause_clock(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.state.progress.train_seconds += time.perf_counter() - self._clock
