"""The updates in plain torch: the CPU path, and what the Triton kernels are checked against.

Rows are taken in chunks that stay in the cache between being gathered and being written back. Each update takes the
arguments of its launcher in ``triton.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..dtypes import accumulator
from .rounding import Rounding, round_rows

CHUNK_BYTES = 2 << 20  # of rows
Change = Callable[[Tensor, Tensor, Tensor], Tensor]  # rows [u, D], their gradients and slots [u] to new rows


def adagrad_reference(
    table: Tensor,
    slots: Tensor,
    sums: Tensor,
    total: Tensor,
    step: Tensor,
    lr: float | Tensor,
    eps: float,
    weight_decay: float,
    rounding: Rounding | None,
) -> None:
    """Row-wise Adagrad: ``total += mean(g^2)``, ``row -= lr * g / (sqrt(total) + eps)``; ``total [M]`` is updated."""
    rate = float(lr)

    def change(rows: Tensor, gradient: Tensor, slots: Tensor) -> Tensor:
        squares = total.index_select(0, slots) + gradient.square().mean(1).to(total.dtype)  # [u]
        total.index_copy_(0, slots, squares)
        scale = -rate / (squares.to(rows.dtype).sqrt() + eps)
        return _decay_weights(rows, rate, weight_decay).addcmul_(gradient, scale.unsqueeze(1))

    _update_rows(table, slots, sums, change, step, rounding)


def adam_reference(
    table: Tensor,
    slots: Tensor,
    sums: Tensor,
    mean: Tensor,
    square: Tensor,
    step: Tensor,
    lr: float | Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    rounding: Rounding | None,
) -> None:
    """Adam; the moments ``mean [M, D]`` and ``square [M, D]`` or ``[M]`` are updated."""
    rate, count = float(lr), int(step)
    step_size = rate / (1 - betas[0] ** count)
    correction = (1 - betas[1] ** count) ** 0.5

    def change(rows: Tensor, gradient: Tensor, slots: Tensor) -> Tensor:
        first = mean.index_select(0, slots).lerp_(gradient.to(mean.dtype), 1 - betas[0])
        mean.index_copy_(0, slots, first)
        squares = gradient.square() if square.dim() == 2 else gradient.square().mean(1)
        second = square.index_select(0, slots).lerp_(squares.to(square.dtype), 1 - betas[1])
        square.index_copy_(0, slots, second)
        divisor = second.sqrt().div_(correction).add_(eps)
        divisor = divisor if square.dim() == 2 else divisor.unsqueeze(1)
        rows = _decay_weights(rows, rate, weight_decay)
        return rows.addcdiv_(first.to(rows.dtype), divisor.to(rows.dtype), value=-step_size)

    _update_rows(table, slots, sums, change, step, rounding)


def sgd_reference(
    table: Tensor,
    slots: Tensor,
    sums: Tensor,
    velocity: Tensor | None,
    step: Tensor,
    lr: float | Tensor,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    rounding: Rounding | None,
) -> None:
    """Gradient descent; the momentum's ``velocity [M, D]`` is updated."""
    rate = float(lr)

    def change(rows: Tensor, gradient: Tensor, slots: Tensor) -> Tensor:
        direction = gradient
        if velocity is not None:
            direction = velocity.index_select(0, slots).mul_(momentum).add_(gradient.to(velocity.dtype))
            velocity.index_copy_(0, slots, direction)
            direction = direction.to(rows.dtype)
            if nesterov:
                direction = gradient.add(direction, alpha=momentum)
        return _decay_weights(rows, rate, weight_decay).add_(direction, alpha=-rate)

    _update_rows(table, slots, sums, change, step, rounding)


def _update_rows(
    table: Tensor, slots: Tensor, sums: Tensor, change: Change, step: Tensor, rounding: Rounding | None
) -> None:
    """``table[slots] = change(table[slots], sums, slots)``, computed in the accumulator's type and rounded once.

    Args:
        table: ``[M, D]``.
        slots: ``[U]`` int64, each once.
        sums: ``[U, D]``.
        change: takes rows ``[u, D]``, which it may overwrite, their gradients and their slots; returns the new rows.
        step: int64 scalar, for the random bits.
        rounding: stochastic, or None.
    """
    dtype = accumulator(table.dtype, sums.dtype)
    chunk = max(1, CHUNK_BYTES // (table.shape[1] * dtype.itemsize)) if table.device.type == "cpu" else len(slots)
    count = int(step) if rounding else 0
    for chunk_slots, gradient in zip(torch.split(slots, chunk), torch.split(sums, chunk), strict=True):
        rows = change(table.index_select(0, chunk_slots).to(dtype), gradient.to(dtype), chunk_slots)
        table.index_copy_(0, chunk_slots, round_rows(rows, table.dtype, chunk_slots, count, rounding))


def _decay_weights(rows: Tensor, lr: float, weight_decay: float) -> Tensor:
    return rows.mul_(1 - lr * weight_decay) if weight_decay else rows
