"""Position, curve and evaluations of a training run, as plain values that a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Progress:
    """Position, curve and best evaluation of a run.

    Args:
        epoch: epochs that are done.
        epoch_step: steps done in the current epoch; 0 means that it has not begun.
        step: steps done in all.
        curve: log loss and AUC of the training rows, predicted before the model learnt from them, over short stretches.
        evaluations: metrics on the validation split, with the training losses since the evaluation before.
        best: index into ``evaluations`` of the highest validation AUC, the first of equals; None before the first.
        stopped: whether patience ran out.
        train_rows: rows trained on.
        train_seconds: seconds spent in steps, without evaluations and checkpoints. Not a result: it never repeats.
    """

    epoch: int = 0
    epoch_step: int = 0
    step: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    best: int | None = None
    stopped: bool = False
    train_rows: int = 0
    train_seconds: float = 0.0

    def add_evaluation(self, evaluation: dict[str, Any], patience: int | None) -> bool:
        """Append an evaluation, stop if ``patience`` evaluations brought nothing, and return whether it is the best."""
        self.evaluations.append(evaluation)
        newest = len(self.evaluations) - 1
        if self.best is None or evaluation["auc"] > self.evaluations[self.best]["auc"]:
            self.best = newest
        self.stopped = patience is not None and newest - self.best >= patience
        return self.best == newest

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """Rebuild from :meth:`to_dict`; a missing or unknown key raises TypeError."""
        return cls(**values)
