"""What training minimises: the click loss plus the weighted losses of the memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lmn_model.ctr.model import CTROutput
from lmn_model.ctr.settings import MemorySettings


class Losses(NamedTuple):
    """The losses of a batch, all scalars.

    Attributes:
        total: click + loss_weight * memory + balance_weight * balance + event, to be minimised.
        click: mean binary cross-entropy of the logits.
        memory: memory loss, not weighted; 0 without a memory.
    """

    total: Tensor
    click: Tensor
    memory: Tensor


def training_losses(output: CTROutput, labels: Tensor, settings: MemorySettings) -> Losses:
    """The training loss of a batch.

    Args:
        output: of the model in training mode; in evaluation mode the click loss is all there is.
        labels: float ``[B]``, 0 or 1.
        settings: of the model's memory, which hold the weights.

    Example:
        >>> output = CTROutput(torch.zeros(2), memory_loss=torch.tensor(0.5))
        >>> losses = training_losses(output, torch.tensor([0.0, 1.0]), MemorySettings(loss_weight=2.0))
        >>> round(float(losses.total - losses.click), 4)
        1.0
    """
    click = binary_cross_entropy_with_logits(output.logits, labels)
    total, memory = click, torch.zeros_like(click)
    if output.memory_loss is not None:
        memory = output.memory_loss
        total = total + settings.loss_weight * memory
    if output.balance_loss is not None:
        total = total + settings.balance_weight * output.balance_loss
    if output.event_loss is not None:
        total = total + output.event_loss
    return Losses(total, click, memory)


def write_loss(losses: Mapping[str, Tensor | None], settings: MemorySettings) -> Tensor | None:
    """The loss that writes events without labels, of :meth:`CTRModel.write_losses`; None if there is none."""
    weights = {"memory_loss": settings.loss_weight, "event_loss": 1.0}
    parts = [weights[name] * loss for name, loss in losses.items() if loss is not None]
    return torch.stack(parts).sum() if parts else None
