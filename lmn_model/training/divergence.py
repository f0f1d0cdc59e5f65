"""Detects the first training step that is not finite, and locates its cause.

Each step costs one pass over the gradients of the dense parameters. Embedding tables are skipped: their gradients are
as large as the tables, and every gradient that reaches them passes through other parameters. The sparse rows of a
memory are skipped too: their gradient is that of the read-out, which the tower shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lmn_model.data import Batch
from lmn_model.training.errors import TrainingError


class StepWatch:
    """Keeps, on the device, whether all steps since the last :meth:`problem` were finite.

    Args:
        model: whose gradients are checked.
        columns: names of the columns of ``Batch.numeric``.
        device: of the model.
    """

    def __init__(self, model: nn.Module, columns: Sequence[str], device: torch.device) -> None:
        tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
        self._model = model
        self._watched = [each for each in model.parameters() if id(each) not in tables]
        self._columns = tuple(columns)
        self._largest = torch.zeros(2, dtype=torch.float32, device=device)  # loss and gradient
        self._finite_columns = torch.ones(len(columns), dtype=torch.bool, device=device)

    @torch.no_grad()
    def look(self, batch: Batch, loss: Tensor) -> None:
        """Record a step after its backward pass and before its update; nothing waits for the device."""
        gradients = [each.grad for each in self._watched if each.grad is not None and not each.grad.is_sparse]
        largest = torch.nn.utils.get_total_norm(gradients, torch.inf)  # NaN if any is
        self._largest = self._largest.maximum(torch.stack((loss.detach().abs().float(), largest.float())))
        if self._columns:
            self._finite_columns &= batch.numeric.isfinite().all(0)

    def check(self, when: str, last: Path) -> None:
        """Raise TrainingError if a step since the last call was not finite. Waits for the device.

        Args:
            when: the step, in words.
            last: the checkpoint that is kept, if there is one.
        """
        if (problem := self.problem()) is not None:
            raise _diverged(problem, when, last)

    def problem(self) -> str | None:
        """What was not finite in the steps since the last call, in words; None if all was. Waits for the device."""
        sound = bool(self._largest.isfinite().all()) and bool(self._finite_columns.all())
        found = None if sound else self._culprit()
        self._largest.zero_()
        self._finite_columns.fill_(True)
        return found

    def _culprit(self) -> str:
        """The earliest cause that can be seen: an input column, a weight, the loss, or the gradient of a weight."""
        for name, finite in zip(self._columns, self._finite_columns.tolist(), strict=True):
            if not finite:
                return f"the input column {name!r} holds NaN or infinity"
        if (name := _not_finite_weight(self._model)) is not None:
            return f"the weight {name!r} became NaN or infinite"
        if not self._largest[0].isfinite():
            return "the loss became NaN or infinite"
        for name, parameter in self._model.named_parameters():
            if parameter.grad is not None and not bool(_values(parameter.grad).isfinite().all()):
                return f"the gradient of the weight {name!r} became NaN or infinite"
        return "a gradient became NaN or infinite"


def check_weights(model: nn.Module, when: str, last: Path) -> None:
    """Raise TrainingError unless all weights are finite; the arguments are those of :meth:`StepWatch.check`."""
    if (name := _not_finite_weight(model)) is not None:
        raise _diverged(f"the weight {name!r} became NaN or infinite", when, last)


def _diverged(what: str, when: str, last: Path) -> TrainingError:
    kept = f"the last good state is kept in {last}" if last.exists() else "no state was saved yet"
    return TrainingError(
        f"{what} {when}; {kept}; a lower learning_rate or memory_learning_rate, or a clip_norm, may help in a new "
        "run if the data are sound"
    )


def _not_finite_weight(model: nn.Module) -> str | None:
    """The first parameter that is not finite, None if there is none."""
    for name, weight in model.named_parameters():
        # The extremes are NaN if any weight is; torch.isfinite would make copies of a large memory.
        if weight.numel() and not torch.stack(torch.aminmax(weight.detach())).isfinite().all():
            return name
    return None


def _values(gradient: Tensor) -> Tensor:
    return gradient._values() if gradient.is_sparse else gradient
