"""The updates in plain torch: the CPU path, and what the Triton kernels are checked against.

Rows are taken in chunks that stay in the cache between being gathered and being written back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..dtypes import accumulator
from .rounding import Rounding, round_rows

CHUNK_BYTES = 2 << 20
Change = Callable[[Tensor, Tensor, Tensor], Tensor]


def update_rows(
    table: Tensor, slots: Tensor, sums: Tensor, change: Change, step: Tensor, rounding: Rounding | None
) -> None:
    """``table[slots] = change(table[slots], sums, slots)``, computed in the accumulator's type and rounded once.

    Args:
        table: ``[M, D]``.
        slots: ``[U]`` int64, each once.
        sums: ``[U, D]``.
        change: takes rows ``[u, D]``, which it may overwrite, their gradients and their slots; gives the new rows.
        step: int64 scalar, for the random bits.
        rounding: stochastic, or None.
    """
    dtype = accumulator(table.dtype, sums.dtype)
    chunk = max(1, CHUNK_BYTES // (table.shape[1] * dtype.itemsize)) if table.device.type == "cpu" else len(slots)
    count = int(step) if rounding else 0
    for some, gradient in zip(torch.split(slots, chunk), torch.split(sums, chunk), strict=True):
        rows = change(table.index_select(0, some).to(dtype), gradient.to(dtype), some)
        table.index_copy_(0, some, round_rows(rows, table.dtype, some, count, rounding))


def adagrad_change(total: Tensor, lr: float, eps: float, weight_decay: float) -> Change:
    """Row-wise Adagrad; ``total [M]`` is updated."""

    def change(rows: Tensor, gradient: Tensor, slots: Tensor) -> Tensor:
        squares = total.index_select(0, slots) + gradient.square().mean(1).to(total.dtype)
        total.index_copy_(0, slots, squares)
        scale = -lr / (squares.to(rows.dtype).sqrt() + eps)
        return _decay(rows, lr, weight_decay).addcmul_(gradient, scale.unsqueeze(1))

    return change


def adam_change(
    mean: Tensor, square: Tensor, step: Tensor, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> Change:
    """Adam; the moments ``mean [M, D]`` and ``square [M, D]`` or ``[M]`` are updated."""
    count = int(step)
    step_size = lr / (1 - betas[0] ** count)
    correction = (1 - betas[1] ** count) ** 0.5

    def change(rows: Tensor, gradient: Tensor, slots: Tensor) -> Tensor:
        first = mean.index_select(0, slots).lerp_(gradient.to(mean.dtype), 1 - betas[0])
        mean.index_copy_(0, slots, first)
        squares = gradient.square() if square.dim() == 2 else gradient.square().mean(1)
        second = square.index_select(0, slots).lerp_(squares.to(square.dtype), 1 - betas[1])
        square.index_copy_(0, slots, second)
        divisor = second.sqrt().div_(correction).add_(eps)
        divisor = divisor if square.dim() == 2 else divisor.unsqueeze(1)
        return _decay(rows, lr, weight_decay).addcdiv_(first.to(rows.dtype), divisor.to(rows.dtype), value=-step_size)

    return change


def sgd_change(velocity: Tensor | None, lr: float, momentum: float, nesterov: bool, weight_decay: float) -> Change:
    """Gradient descent; the momentum's ``velocity [M, D]`` is updated."""

    def change(rows: Tensor, gradient: Tensor, slots: Tensor) -> Tensor:
        direction = gradient
        if velocity is not None:
            direction = velocity.index_select(0, slots).mul_(momentum).add_(gradient.to(velocity.dtype))
            velocity.index_copy_(0, slots, direction)
            direction = direction.to(rows.dtype)
            if nesterov:
                direction = gradient.add(direction, alpha=momentum)
        return _decay(rows, lr, weight_decay).add_(direction, alpha=-lr)

    return change


def _decay(rows: Tensor, lr: float, weight_decay: float) -> Tensor:
    return rows.mul_(1 - lr * weight_decay) if weight_decay else rows
