"""The loop of a training: steps, checks, evaluations, checkpoints and what is written of them.

Everything that the next step depends on is either a pure function of the settings (the order of the rows is one of seed
and epoch) or in the checkpoint: weights, optimiser state, the generator's state, the position and the running sums.
What does not repeat, such as seconds and memory, is kept apart from the results in ``metrics.json``.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from contextlib import closing
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm.contrib.logging import logging_redirect_tqdm

from lmn_model.ctr.model import CTRModel
from lmn_model.data import Batch, BatchLoader, Dataset
from lmn_model.files import write_json
from lmn_model.modules.reseeding import reseed
from lmn_model.modules.usage import MemoryUsage
from lmn_model.signals import stop_requests
from lmn_model.training.baseline import baseline_metrics
from lmn_model.training.catch_up import catch_up
from lmn_model.training.checkpoint import CheckpointError
from lmn_model.training.divergence import StepWatch, not_finite_weight
from lmn_model.training.environment import describe_environment, peak_memory_mib
from lmn_model.training.evaluation import build_model, data_fingerprint, evaluate_split
from lmn_model.training.log_messages import EpochReport, metrics_in_words, parameters_in_words, usage_in_words
from lmn_model.training.metrics import MetricError, auc, log_loss
from lmn_model.training.optimizers import Optimizers
from lmn_model.training.plots import plot_learning_curves, plot_memory_usage, usage_axes
from lmn_model.training.run_folder import RunFolder
from lmn_model.training.run_state import RunState, load_model, save_model
from lmn_model.training.settings import Settings

CURVE_POINTS = 20
"""Points of the training curve in an epoch."""
CUDA_CHECK_STEPS = 16
"""On CUDA :class:`StepWatch` is read every so many steps, for reading waits for the device; on the CPU in each step."""

DRAWING_SECONDS = 10
"""The learning curves are drawn at an evaluation if the last drawing is so old."""

logger = logging.getLogger("lmn")


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what is kept."""


class TrainingInterrupted(Exception):
    """A signal asked to stop; the state is saved, and the message says how to go on."""


class Trainer:
    """One run: model, optimisers and position, and the loop over the epochs.

    Args:
        settings: of the run, with all sizes set, see :mod:`lmn_model.training.default_sizes`.
        dataset: the samples.
        folder: open for writing.
        device: where the model runs.

    Raises:
        ValueError: a size is not set.
    """

    def __init__(self, settings: Settings, dataset: Dataset, folder: RunFolder, device: torch.device) -> None:
        if names := settings.unset():
            raise ValueError(f"Trainer: {', '.join(names)} must be set, got None")
        self.settings = settings
        self.dataset = dataset
        self.folder = folder
        self.device = device
        self.identity = {
            "features": dataset.features.to_dict(),
            "data": data_fingerprint(dataset),
            "settings": settings.decisive(),
        }
        model = build_model(dataset.features, settings.model).to(device)
        self.state = RunState(model, Optimizers(model, settings.training), device, self._count_reads(model))
        self._watch = StepWatch(model, dataset.features.numeric, device)
        self.steps_per_epoch = -(-len(dataset.train) // settings.training.batch_size)
        self._baseline: dict[str, Any] = {"valid": baseline_metrics(dataset.train, [], dataset.valid), "test": None}
        self._warnings = dataset.warnings()
        self._environment = describe_environment(device)
        self._saved_at = time.monotonic()
        self._drawn_at = -math.inf
        self._clock = time.perf_counter()

    def _count_reads(self, model: CTRModel) -> MemoryUsage | None:
        """Have the model's memory count its reads, if it has one and is to."""
        layer = model.memory_block()
        if layer is None or not self.settings.counts_reads():
            return None
        reseeds = self.settings.training.reseed_every is not None
        layer.usage = MemoryUsage(layer.keys.shape[2], layer.heads, self.device, by_sub_key=reseeds)
        return layer.usage

    def restore(self) -> None:
        """Go back to the last checkpoint.

        Raises:
            CheckpointError: the file is damaged, or of another model or other data.
        """
        self.state.load(self.folder.last, self.identity)
        progress = self.state.progress
        logger.info("resumed at epoch %d, step %d of it", progress.epoch + 1, progress.epoch_step)

    def run(self, test: bool = True) -> dict[str, Any]:
        """Train to the end, then, if ``test``, evaluate the best model on the test part; see :func:`train`."""
        logger.info("data: %s", self.dataset.summary())
        logger.info("model: %s", parameters_in_words(self.state.model.parameter_counts(), self._slots()))
        with stop_requests() as stop, logging_redirect_tqdm([logger]):
            while not self._is_done():
                self._run_epoch(stop)
            if stop.is_set():  # the signal came in the last step or its evaluation; all is saved
                self._write_metrics("interrupted", {})
                raise TrainingInterrupted(f"stopped before the test; go on with: lmn train --resume {self.folder}")
        best = load_model(self.folder.best, self.state.model).get("evaluation")
        if best is None:
            raise CheckpointError(f"{self.folder.best}: holds no evaluation; it is not the best model of a run")
        if not test:
            return self._write_metrics("finished", {"best": best, "test": None})
        try:
            found = self._test()
        except KeyboardInterrupt as stopped:
            raise TrainingInterrupted(
                f"stopped before the test was over; go on with: lmn train --resume {self.folder}"
            ) from stopped
        logger.info("best at step %d by validation AUC; test split: %s", best["step"], metrics_in_words(found))
        self._baseline["test"] = baseline_metrics(self.dataset.train, [self.dataset.valid], self.dataset.test)
        logger.info("item and user rates alone, without a model: %s", metrics_in_words(self._baseline["test"]))
        for warning in self._warnings:
            if warning.startswith("test split"):
                logger.warning("warning: %s", warning)
        return self._write_metrics("finished", {"best": best, "test": found})

    def _test(self) -> dict[str, float | None]:
        """Write the events before the test split to the memory of the best model, and score the split."""
        events = catch_up(self.folder.best, self.state.model, self.settings.training, self.dataset, self.device)
        if events:
            logger.info("%s events before the test split were written to the memory", f"{events:,}")
        return evaluate_split(self.state.model, self.dataset.test, self.settings.training.batch_size, self.device)

    def _slots(self) -> int | None:
        layer = self.state.model.memory_block()
        return None if layer is None else layer.keys.shape[2] ** 2

    def _run_epoch(self, stop: threading.Event) -> None:
        progress, training = self.state.progress, self.settings.training
        if progress.epoch_step == 0:
            self.state.optimizers.reset(self.state.model.begin_epoch(progress.epoch))
            if self.state.usage is not None:
                self.state.usage.reset()
        loader = BatchLoader(
            self.dataset.train,
            training.batch_size,
            order=training.order,
            seed=training.seed,
            epoch=progress.epoch,
            start=progress.epoch_step,
            new_events=self.settings.model.writes_new_events,
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
        click_loss = binary_cross_entropy_with_logits(out.logits, batch.label)
        loss, memory_loss = click_loss, torch.zeros_like(click_loss)
        if out.memory_loss is not None:
            memory_loss = out.memory_loss
            loss = loss + self.settings.model.memory.loss_weight * memory_loss
        if out.balance_loss is not None:
            loss = loss + self.settings.model.memory.balance_weight * out.balance_loss
        loss.backward()
        self._watch.look(batch, loss)
        if self.device.type == "cpu":  # before the update, so that the weights stay as they were
            self._check_steps(f"at step {self.state.progress.step + 1}")
        self.state.optimizers.step()
        self._look_after_memory()
        rows = len(batch)
        self.state.sums += (
            torch.stack((click_loss.detach(), memory_loss.detach(), torch.ones_like(click_loss))).double() * rows
        )
        self.state.recent.append((out.logits.detach(), batch.label))
        self.state.progress.epoch_step += 1
        self.state.progress.step += 1
        self.state.progress.train_rows += rows

    def _look_after_memory(self) -> None:
        """Count the step and, where it is due, move the sub-keys that nobody reads."""
        usage, layer = self.state.usage, self.state.model.memory_block()
        if usage is None or layer is None:
            return
        usage.advance()
        every = self.settings.training.reseed_every
        if every is not None and usage.step % every == 0:
            moved = int(reseed(layer, usage, self.state.optimizers).sub_keys.sum())
            if moved:
                logger.info("step %d: %d sub-keys that nobody read were moved", self.state.progress.step + 1, moved)

    def _after_step(self, stop: threading.Event, report: EpochReport) -> bool:
        """Check, record, evaluate and save as is due; whether the epoch is over."""
        progress, training = self.state.progress, self.settings.training
        stops = stop.is_set()  # read once: a signal that comes during an evaluation waits for the next step
        ends = progress.epoch_step == self.steps_per_epoch
        evaluates = ends or (training.eval_every is not None and progress.step % training.eval_every == 0)
        # An evaluation within an epoch saves no state: a large memory with its moments is a gigabyte and more.
        saves = ends or stops or self._checkpoint_due()
        records = ends or progress.epoch_step % max(1, self.steps_per_epoch // CURVE_POINTS) == 0
        reads = saves or evaluates or records
        if self.device.type != "cpu" and (reads or progress.step % CUDA_CHECK_STEPS == 0):
            self._check_steps(f"at or shortly before step {progress.step}")
        if records:
            self._record(report)
        if report.is_due():
            click_loss, _, rows = self.state.sums.tolist()
            report.log(click_loss / rows)
        if not (saves or evaluates):
            return False
        self._check_weights()
        self._pause_clock()
        if evaluates:
            self._evaluate()
        if ends:
            progress.epoch, progress.epoch_step = progress.epoch + 1, 0
        if saves or progress.stopped:
            self.state.save(self.folder.last, self.identity)
            self._saved_at = time.monotonic()
        if evaluates:
            self._write_metrics("running", {})
        if stops:
            self._write_metrics("interrupted", {})
            raise TrainingInterrupted(
                f"stopped after step {progress.step}; go on with: lmn train --resume {self.folder}"
            )
        self._clock = time.perf_counter()
        return ends or progress.stopped

    def _is_done(self) -> bool:
        return self.state.progress.stopped or self.state.progress.epoch >= self.settings.training.epochs

    def _checkpoint_due(self) -> bool:
        training = self.settings.training
        if training.checkpoint_steps is not None and self.state.progress.step % training.checkpoint_steps == 0:
            return True
        return time.monotonic() - self._saved_at >= 60 * training.checkpoint_minutes

    def _check_steps(self, when: str) -> None:
        """Raise TrainingError if the loss, a gradient or a number of the batch was not finite."""
        if (problem := self._watch.problem()) is not None:
            raise self._diverged(problem, when)

    def _check_weights(self) -> None:
        # The loss of a step says nothing about the update after it: without this, NaN weights could be saved as good.
        if (name := not_finite_weight(self.state.model)) is not None:
            step = self.state.progress.step
            raise self._diverged(f"the weight {name!r} became NaN or infinite", f"at or shortly before step {step}")

    def _diverged(self, what: str, when: str) -> TrainingError:
        last = self.folder.last
        kept = f"the last good state is kept in {last}" if last.exists() else "no state was saved yet"
        return TrainingError(
            f"{what} {when}; {kept}; a lower learning_rate or memory_learning_rate, or a clip_norm, may help in a new "
            "run if the data are sound"
        )

    def _record(self, report: EpochReport) -> None:
        logits, labels = (torch.cat(parts).cpu().numpy() for parts in zip(*self.state.recent, strict=True))
        self.state.recent.clear()
        point: dict[str, Any] = {"step": self.state.progress.step, "loss": log_loss(labels, logits), "auc": None}
        if 0 < labels.sum() < len(labels):
            point["auc"] = auc(labels, logits)
        usage = self._reported_usage()
        if usage is not None:
            point["memory"] = {
                "coverage": usage.coverage(),
                "recent_coverage": usage.coverage(self._last_stretch(usage)),
            }
        self.state.progress.curve.append(point)
        report.show(point["loss"], point["auc"])

    def _reported_usage(self) -> MemoryUsage | None:
        return self.state.usage if self.settings.training.memory_usage else None

    def _last_stretch(self, usage: MemoryUsage) -> int:
        """The step at which the last stretch of the curve began."""
        return usage.step - max(1, self.steps_per_epoch // CURVE_POINTS)

    def _evaluate(self) -> None:
        progress, training = self.state.progress, self.settings.training
        click_loss, memory_loss, rows = self.state.sums.tolist()
        self.state.sums.zero_()
        try:
            valid = evaluate_split(self.state.model, self.dataset.valid, training.batch_size, self.device)
        except MetricError as error:
            raise TrainingError(f"the validation part cannot be scored after step {progress.step}: {error}") from error
        evaluation = {
            "step": progress.step,
            "epoch": progress.epoch + 1,
            "train_loss": click_loss / rows,
            "memory_loss": memory_loss / rows if self.state.model.sparse_parameters() else None,
            **valid,
        }
        counted = self._reported_usage()
        usage = None if counted is None else counted.summary(since=self._last_stretch(counted))
        if usage is not None:
            evaluation["memory"] = usage
        # An epoch begins with an empty memory, so what is scored within it is no sign of a model that gets worse.
        judges = progress.epoch_step == self.steps_per_epoch or self.state.model.memory_block() is None
        is_best = progress.add_evaluation(evaluation, training.patience if judges else None)
        logger.info(
            "epoch %d of %d, step %d: %s; validation %s%s",
            progress.epoch + 1,
            training.epochs,
            progress.step,
            metrics_in_words({name: evaluation[name] for name in ("train_loss", "memory_loss")}),
            metrics_in_words(valid),
            " (best so far)" if is_best else "",
        )
        if counted is not None and usage is not None:
            recent = min(counted.step, counted.step - self._last_stretch(counted))
            logger.info("memory: %s", usage_in_words(usage, counted.sub_keys**2, recent))
        if is_best:
            writes = self.settings.model.writes_new_events
            optimizers = self.state.optimizers if writes else None
            save_model(self.folder.best, self.state.model, {**self.identity, "evaluation": evaluation}, optimizers)

    def _pause_clock(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.state.progress.train_seconds += time.perf_counter() - self._clock

    def _write_metrics(self, status: str, final: dict[str, Any]) -> dict[str, Any]:
        progress = self.state.progress
        metrics: dict[str, Any] = {
            "status": status,
            "results": {
                **final,
                "epochs": progress.epoch,
                "steps": progress.step,
                "train_rows": progress.train_rows,
                "stopped_early": progress.stopped,
                "parameters": self.state.model.parameter_counts(),
                "data": self.dataset.describe(),
                "warnings": self._warnings,
                "baseline": self._baseline,
                "evaluations": progress.evaluations,
                "curve": progress.curve,
            },
            "timing": {
                "train_seconds": round(progress.train_seconds, 3),
                "samples_per_second": round(progress.train_rows / progress.train_seconds, 1),
                "peak_memory_mib": peak_memory_mib(self.device),
            },
            "environment": self._environment,
            "settings": self.settings.to_dict(),
        }
        # Drawn first: who reads "finished" finds every file. Not at each of many quick evaluations.
        if status != "running" or time.monotonic() - self._drawn_at >= DRAWING_SECONDS:
            plot_learning_curves(metrics["results"], self.folder.curves)
            if (usage := self._reported_usage()) is not None:
                plot_memory_usage(usage, progress.curve, self.folder.memory_usage, usage_axes(self.state.model))
            self._drawn_at = time.monotonic()
        write_json(self.folder.metrics, metrics)
        return metrics
