"""The log lines of a training: sentences for people; ``metrics.json`` has the same figures under stable names."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

REPORT_SECONDS = 10.0
"""Between two lines of progress, where there is no terminal for a bar."""
NAMES = {
    "auc": "AUC",
    "gauc": "GAUC",
    "log_loss": "log loss",
    "train_loss": "training loss",
    "memory_loss": "memory loss",
}
PARTS = {"interest": "window model"}

logger = logging.getLogger("lmn")


class EpochReport:
    """Progress of an epoch: a bar on a terminal, elsewhere a line in the log every :data:`REPORT_SECONDS`.

    Args:
        epoch: number of the epoch, from 1.
        epochs: that the run has at most.
        rows: samples of an epoch.
        batch_size: samples of a step.
        steps_done: steps of the epoch that an earlier process did.
    """

    def __init__(self, epoch: int, epochs: int, rows: int, batch_size: int, steps_done: int) -> None:
        self.epoch, self.epochs, self.rows, self.batch_size = epoch, epochs, rows, batch_size
        self.done = min(rows, steps_done * batch_size)
        self._bar = tqdm(
            total=rows,
            initial=self.done,
            desc=f"epoch {epoch}/{epochs}",
            unit=" samples",
            unit_scale=True,
            disable=not _on_terminal(),
            leave=False,
        )
        self._since, self._rows_since = time.monotonic(), 0

    def __enter__(self) -> EpochReport:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, rows: int) -> None:
        """``rows`` more samples were trained on."""
        self.done += rows
        self._rows_since += rows
        self._bar.update(rows)

    def show(self, loss: float, auc: float | None) -> None:
        """Show the figures of the newest stretch beside the bar."""
        self._bar.set_postfix(loss=f"{loss:.4f}", auc="-" if auc is None else f"{auc:.4f}")

    def is_due(self) -> bool:
        """Whether the log needs a line."""
        return self._bar.disable and time.monotonic() - self._since >= REPORT_SECONDS

    def log(self, loss: float) -> None:
        """Write the line, with the mean ``loss`` since the last evaluation."""
        now = time.monotonic()
        speed = self._rows_since / (now - self._since)
        left = (self.rows * (self.epochs - self.epoch + 1) - self.done) / speed
        logger.info(
            "step %s of %s in epoch %d of %d (%.0f %%): %s samples/s, loss %.4f, about %s left",
            f"{-(-self.done // self.batch_size):,}",
            f"{-(-self.rows // self.batch_size):,}",
            self.epoch,
            self.epochs,
            100 * self.done / self.rows,
            f"{speed:,.0f}",
            loss,
            duration(left),
        )
        self._since, self._rows_since = now, 0


def duration(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def metrics_in_words(metrics: Mapping[str, Any]) -> str:
    """``AUC 0.7552, log loss 0.5760``; those that are None or have no name in words are skipped."""
    return ", ".join(
        f"{NAMES[name]} {value:.4f}" for name, value in metrics.items() if name in NAMES and value is not None
    )


def evaluation_in_words(evaluation: Mapping[str, Any], epochs: int, is_best: bool) -> str:
    """Step, losses and validation metrics of an evaluation.

    Args:
        evaluation: as in ``metrics.json``.
        epochs: that the run has at most.
        is_best: whether no earlier one had a higher AUC.
    """
    losses, scores = (
        metrics_in_words({name: evaluation[name] for name in names})
        for names in (("train_loss", "memory_loss"), ("auc", "gauc", "log_loss"))
    )
    best = " (best so far)" if is_best else ""
    return f"epoch {evaluation['epoch']} of {epochs}, step {evaluation['step']}: {losses}; validation {scores}{best}"


def parameters_in_words(counts: Mapping[str, int], slots: int | None) -> str:
    """The sizes of a model.

    Args:
        counts: from ``CTRModel.parameter_counts``.
        slots: M, slots of the memory; None without one.
    """
    parts = [f"{PARTS.get(name, name)} {count:,}" for name, count in counts.items() if name != "total" and count]
    memory = "" if slots is None else f"; the memory has {slots:,} slots"
    return f"{counts['total']:,} parameters ({', '.join(parts)}){memory}"


def usage_in_words(usage: Mapping[str, Any], slots: int, recent_steps: int) -> str:
    """How much of a memory is read.

    Args:
        usage: from ``MemoryUsage.summary``.
        slots: M.
        recent_steps: steps that ``recent_coverage`` is of.
    """
    recent = "step" if recent_steps == 1 else f"{recent_steps:,} steps"
    read = (
        f"{_percent(usage['coverage'])} of {slots:,} slots read in this epoch, "
        f"{_percent(usage['recent_coverage'])} in the last {recent}"
    )
    if usage["gini"] is None:
        return read
    return (
        f"{read}; the 1 % of slots read most take {_percent(usage['top_1_percent'])} of the reads; "
        f"evenness {1 - usage['gini']:.2f} (1: all slots alike)"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
