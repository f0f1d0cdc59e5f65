"""The updates in one kernel each: a program takes a few rows, reads them, their gradients and their state once, and
writes rows and state back.

Bytes moved at least: gradient rows read, table rows read and written, the row's state read and written, and 8 bytes a
slot. Rows are at random places but whole, so a lane moves 16 bytes at a time where D allows.

Each slot occurs once, so no two programs write one row. While a CUDA graph is captured their number is not known and
the first slot occurs again at the end with zeros (``touched_rows``): such an entry is skipped. The step, and a
learning rate that is a tensor, are read from memory, so that a captured step can be replayed with new ones. Other
hyperparameters are float64 arguments, because a schedule may change them at every step and a constant of the kernel
would compile it again each time. Triton does not specialise a kernel on the value of a float argument.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dtypes import accumulator
from ..launch import ceil_div, launch, power_of_two
from ..triton import acc_type, narrow
from .rounding import FIRST, GOLDEN, SECOND, Rounding

FIRST_FACTOR, SECOND_FACTOR, GOLDEN_STEP = tl.constexpr(FIRST), tl.constexpr(SECOND), tl.constexpr(GOLDEN)
TILE = 1024  # elements of a program's tile


def launch_adagrad(
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
    """Row-wise Adagrad; see ``reference.adagrad_reference``."""
    meta = _meta(table, sums, rounding)
    _launch_in_place(
        _row_adagrad_kernel, (table, total), _grid(slots, meta),
        table, slots, sums.contiguous(), total, step, _scalar(lr, table, sums), len(slots),
        _seed(rounding), eps, weight_decay, **meta,
    )  # fmt: skip


def launch_adam(
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
    """Adam; see ``reference.adam_reference``."""
    meta = _meta(table, sums, rounding)
    _launch_in_place(
        _row_adam_kernel, (table, mean, square), _grid(slots, meta),
        table, slots, sums.contiguous(), mean, square, step, _scalar(lr, table, sums), len(slots),
        _seed(rounding), *_beta_arguments(betas[0]), *_beta_arguments(betas[1]), eps, weight_decay,
        ONE_A_ROW=square.dim() == 1, **meta,
    )  # fmt: skip


def launch_sgd(
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
    """Gradient descent; see ``reference.sgd_reference``."""
    meta = _meta(table, sums, rounding)
    _launch_in_place(
        _row_sgd_kernel, (table,) if velocity is None else (table, velocity), _grid(slots, meta),
        table, slots, sums.contiguous(), table if velocity is None else velocity, step, _scalar(lr, table, sums),
        len(slots), _seed(rounding), momentum, weight_decay,
        HAS_MOMENTUM=velocity is not None, NESTEROV=nesterov, **meta,
    )  # fmt: skip


def _launch_in_place(kernel: Any, written: tuple[Tensor, ...], grid: tuple[int, ...], *args: Any, **meta: Any) -> None:
    """Launch ``kernel`` and raise the version of the tensors that it writes, as every in-place operation of torch does.

    Autograd compares versions: a graph that still needs what was overwritten raises in its backward pass.
    """
    launch(kernel, grid, *args, **meta)
    torch.autograd.graph.increment_version(written)


def _meta(table: Tensor, sums: Tensor, rounding: Rounding | None) -> dict[str, Any]:
    """Constants and options that all three kernels take; a tile is rows times columns, ``TILE`` elements."""
    D = table.shape[1]
    block_d = min(power_of_two(D), TILE)
    return {
        "D": D,
        "STOCHASTIC": rounding is not None,
        "ACC": acc_type(table.dtype, sums.dtype),
        "BLOCK_U": TILE // block_d,
        "BLOCK_D": block_d,
        "num_warps": 4,
    }


def _seed(rounding: Rounding | None) -> int:
    return 0 if rounding is None else rounding.seed


def _grid(slots: Tensor, meta: dict[str, Any]) -> tuple[int]:
    return (ceil_div(len(slots), meta["BLOCK_U"]),)


def _scalar(value: float | Tensor, table: Tensor, sums: Tensor) -> Tensor:
    """A hyperparameter in the device's memory, in the type of the computation."""
    dtype = accumulator(table.dtype, sums.dtype)
    if isinstance(value, Tensor):
        return value.to(table.device, dtype)
    return torch.full((), float(value), dtype=dtype, device=table.device)


def _beta_arguments(beta: float) -> tuple[float, float, float]:
    """beta, 1 - beta and log2 beta, computed here in float64: as arguments they take no registers of the kernel."""
    return beta, 1 - beta, math.log2(beta) if beta > 0 else -math.inf


@triton.jit
def _mix(x):
    """As ``rounding._mix``, on uint32."""
    x = x ^ (x >> 16)
    x = x * FIRST_FACTOR
    x = x ^ (x >> 15)
    x = x * SECOND_FACTOR
    return x ^ (x >> 16)


@triton.jit
def _low(x):
    """The low 32 bits of an int64, as uint32."""
    return (x & 0xFFFFFFFF).to(tl.uint32)


@triton.jit
def _random_bits(seed, step, slots, columns):
    """As ``rounding.random_bits``: uint32 ``[U, D]`` of slots ``[U]`` and columns ``[D]``."""
    seed = tl.cast(seed, tl.int64)
    key = _mix(_low(seed))
    key = _mix(key ^ _low(seed >> 32))
    key = _mix(key ^ _low(step))
    key = _mix(key ^ _low(step >> 32))
    rows = _mix(_mix(_low(slots) ^ key) ^ _low(slots >> 32))
    return _mix(rows[:, None] + (columns.to(tl.uint32) * GOLDEN_STEP)[None, :])


@triton.jit
def _round_stochastically(rows, bits, DTYPE: tl.constexpr):
    """As ``rounding.round_stochastically``, with ``rounding.LARGEST`` written out."""
    rows = rows.to(tl.float32)
    words = rows.to(tl.uint32, bitcast=True)
    if tl.bfloat16 == DTYPE:
        rounded = ((words + (bits >> 16)) & 0xFFFF0000).to(tl.float32, bitcast=True)
    else:
        normal = ((words + (bits >> 19)) & 0xFFFFE000).to(tl.float32, bitcast=True)
        share = (bits >> 8).to(tl.float32) * 5.9604644775390625e-08  # 2 ** -24
        size = tl.abs(rows)
        units = tl.floor(size * 16777216.0)
        subnormal = (units + (share < size * 16777216.0 - units).to(tl.float32)) * 5.9604644775390625e-08
        subnormal = tl.where(rows < 0, -subnormal, subnormal)
        rounded = tl.where(size < 6.103515625e-05, subnormal, normal)  # 2 ** -14
    LARGEST: tl.constexpr = 3.3895313892515355e38 if tl.bfloat16 == DTYPE else 65504.0
    BOUND: tl.constexpr = 3.3961775292304601e38 if tl.bfloat16 == DTYPE else 65520.0  # below it the nearest is finite
    rounded = tl.where(tl.abs(rows) < BOUND, tl.minimum(tl.maximum(rounded, -LARGEST), LARGEST), rounded)
    return tl.where((words & 0x7F800000) != 0x7F800000, rounded, rows).to(DTYPE)


@triton.jit
def _touched(slots_ptr, U, BLOCK_U: tl.constexpr):
    """Number and slot of each of a program's rows, and whether it is valid: repeats of the first slot are padding."""
    u = tl.program_id(0).to(tl.int64) * BLOCK_U + tl.arange(0, BLOCK_U)
    slots = tl.load(slots_ptr + u, mask=u < U, other=0)
    return u, slots, (u < U) & ((u == 0) | (slots != tl.load(slots_ptr)))


@triton.jit
def _wide(number, ACC: tl.constexpr):
    """A hyperparameter, float64 (in the interpreter a number of Python), in the type of the computation."""
    return tl.full((), number, ACC)


@triton.jit
def _store_rows(table_ptr, places, rows, mask, seed, step_ptr, slots, d, STOCHASTIC: tl.constexpr):
    """Store updated ``rows [BLOCK_U, BLOCK_D]`` at ``places`` in the table's type, to the nearest or stochastically."""
    DTYPE: tl.constexpr = table_ptr.dtype.element_ty
    if STOCHASTIC:
        stored = _round_stochastically(rows, _random_bits(seed, tl.load(step_ptr), slots, d), DTYPE)
    else:
        stored = narrow(rows, DTYPE)
    tl.store(table_ptr + places, stored, mask=mask)


@triton.jit(do_not_specialize=["U", "seed"])
def _row_adagrad_kernel(
    table_ptr, slots_ptr, sums_ptr, total_ptr, step_ptr, lr_ptr, U, seed,
    eps: tl.float64, weight_decay: tl.float64,
    D: tl.constexpr, STOCHASTIC: tl.constexpr, ACC: tl.constexpr,
    BLOCK_U: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Row-wise Adagrad on touched rows: ``total += mean(g^2)``, ``row -= lr * g / (sqrt(total) + eps)``.

    A program takes ``BLOCK_U`` rows, ``BLOCK_D`` columns at a time; grid ``(ceil(U / BLOCK_U),)``.

    In: slots ``[U]`` int64 and their gradients sums ``[U, D]``, contiguous; step int64 and lr, scalars in memory.
    In and out: table ``[M, D]`` of any float type; total ``[M]``, float32 or float64.
    """
    u, slots, valid = _touched(slots_ptr, U, BLOCK_U)
    squares = tl.zeros([BLOCK_U], dtype=ACC)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        mask = valid[:, None] & (d < D)[None, :]
        gradient = tl.load(sums_ptr + u[:, None] * D + d[None, :], mask=mask, other=0).to(ACC)
        squares += tl.sum(gradient * gradient, axis=1)
    total = tl.load(total_ptr + slots, mask=valid, other=0).to(ACC) + squares / D
    tl.store(total_ptr + slots, total.to(total_ptr.dtype.element_ty), mask=valid)
    lr = tl.load(lr_ptr)
    decay = 1 - lr * _wide(weight_decay, ACC)
    scale = lr / (tl.sqrt(total) + _wide(eps, ACC))
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        mask = valid[:, None] & (d < D)[None, :]
        places = slots[:, None] * D + d[None, :]
        gradient = tl.load(sums_ptr + u[:, None] * D + d[None, :], mask=mask, other=0).to(ACC)
        rows = tl.load(table_ptr + places, mask=mask, other=0).to(ACC) * decay
        _store_rows(table_ptr, places, rows - scale[:, None] * gradient, mask, seed, step_ptr, slots, d, STOCHASTIC)


@triton.jit(do_not_specialize=["U", "seed"])
def _row_adam_kernel(
    table_ptr, slots_ptr, sums_ptr, mean_ptr, square_ptr, step_ptr, lr_ptr, U, seed,
    beta_1: tl.float64, rate_1: tl.float64, log_1: tl.float64,
    beta_2: tl.float64, rate_2: tl.float64, log_2: tl.float64, eps: tl.float64, weight_decay: tl.float64,
    D: tl.constexpr, ONE_A_ROW: tl.constexpr, STOCHASTIC: tl.constexpr, ACC: tl.constexpr,
    BLOCK_U: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Adam on touched rows, with bias correction by the steps of the table.

    A program takes ``BLOCK_U`` rows, ``BLOCK_D`` columns at a time; grid ``(ceil(U / BLOCK_U),)``.

    In: slots ``[U]`` int64 and their gradients sums ``[U, D]``, contiguous; step int64 and lr, scalars in memory; beta,
    1 - beta (rate) and log2 beta (log) of both moments.
    In and out: table ``[M, D]`` of any float type; mean ``[M, D]`` and square ``[M, D]``, or ``[M]`` with ONE_A_ROW,
    float32 or float64.
    """
    u, slots, valid = _touched(slots_ptr, U, BLOCK_U)
    lr = tl.load(lr_ptr)
    decay = 1 - lr * _wide(weight_decay, ACC)
    first_decay, first_rate = _wide(beta_1, ACC), _wide(rate_1, ACC)
    second_decay, second_rate = _wide(beta_2, ACC), _wide(rate_2, ACC)
    epsilon = _wide(eps, ACC)
    count = tl.load(step_ptr).to(tl.float64)  # 1 - beta ** count loses half its digits in float32
    step_size = lr / (1 - tl.exp2(count * log_1)).to(ACC)
    correction = tl.sqrt(1 - tl.exp2(count * log_2)).to(ACC)
    divisor = tl.zeros([BLOCK_U, 1], dtype=ACC)
    if ONE_A_ROW:
        squares = tl.zeros([BLOCK_U], dtype=ACC)
        for start in range(0, D, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            mask = valid[:, None] & (d < D)[None, :]
            gradient = tl.load(sums_ptr + u[:, None] * D + d[None, :], mask=mask, other=0).to(ACC)
            squares += tl.sum(gradient * gradient, axis=1)
        second = tl.load(square_ptr + slots, mask=valid, other=0).to(ACC)
        second = second * second_decay + squares / D * second_rate
        tl.store(square_ptr + slots, second.to(square_ptr.dtype.element_ty), mask=valid)
        divisor = (tl.sqrt(second) / correction + epsilon)[:, None]
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        mask = valid[:, None] & (d < D)[None, :]
        places = slots[:, None] * D + d[None, :]
        gradient = tl.load(sums_ptr + u[:, None] * D + d[None, :], mask=mask, other=0).to(ACC)
        first = tl.load(mean_ptr + places, mask=mask, other=0).to(ACC)
        first = first * first_decay + gradient * first_rate
        tl.store(mean_ptr + places, first.to(mean_ptr.dtype.element_ty), mask=mask)
        if ONE_A_ROW:
            change = step_size * first / divisor
        else:
            squared = tl.load(square_ptr + places, mask=mask, other=0).to(ACC)
            squared = squared * second_decay + gradient * gradient * second_rate
            tl.store(square_ptr + places, squared.to(square_ptr.dtype.element_ty), mask=mask)
            change = step_size * first / (tl.sqrt(squared) / correction + epsilon)
        rows = tl.load(table_ptr + places, mask=mask, other=0).to(ACC) * decay
        _store_rows(table_ptr, places, rows - change, mask, seed, step_ptr, slots, d, STOCHASTIC)


@triton.jit(do_not_specialize=["U", "seed"])
def _row_sgd_kernel(
    table_ptr, slots_ptr, sums_ptr, velocity_ptr, step_ptr, lr_ptr, U, seed,
    momentum: tl.float64, weight_decay: tl.float64,
    D: tl.constexpr, HAS_MOMENTUM: tl.constexpr, NESTEROV: tl.constexpr, STOCHASTIC: tl.constexpr, ACC: tl.constexpr,
    BLOCK_U: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradient descent on touched rows, with momentum if HAS_MOMENTUM.

    A program takes ``BLOCK_U`` rows, ``BLOCK_D`` columns at a time; grid ``(ceil(U / BLOCK_U),)``.

    In: slots ``[U]`` int64 and their gradients sums ``[U, D]``, contiguous; step int64 and lr, scalars in memory.
    In and out: table ``[M, D]`` of any float type; velocity ``[M, D]``, float32 or float64, with HAS_MOMENTUM.
    """
    u, slots, valid = _touched(slots_ptr, U, BLOCK_U)
    lr = tl.load(lr_ptr)
    decay = 1 - lr * _wide(weight_decay, ACC)
    wide_momentum = _wide(momentum, ACC)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        mask = valid[:, None] & (d < D)[None, :]
        places = slots[:, None] * D + d[None, :]
        direction = tl.load(sums_ptr + u[:, None] * D + d[None, :], mask=mask, other=0).to(ACC)
        if HAS_MOMENTUM:
            velocity = tl.load(velocity_ptr + places, mask=mask, other=0).to(ACC) * wide_momentum + direction
            tl.store(velocity_ptr + places, velocity.to(velocity_ptr.dtype.element_ty), mask=mask)
            direction = direction + wide_momentum * velocity if NESTEROV else velocity
        rows = tl.load(table_ptr + places, mask=mask, other=0).to(ACC) * decay
        _store_rows(table_ptr, places, rows - lr * direction, mask, seed, step_ptr, slots, d, STOCHASTIC)
