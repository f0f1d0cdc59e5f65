"""Triton kernels of the weighted bag: forward, gradient of the weights, gradient of the values.

Forward and the weights' gradient read each named row once, a tile of rows at a time so that several loads are in
flight. The values' gradient sorts the entries by slot and gives each run of equal slots to one program, which writes
its row once: no atomics, the same sum in the same order on every run, untouched rows never read; the price is that one
program sums all of a hot slot. Row offsets are int64
throughout, so no table is too large. A slot outside [0, M) is never dereferenced: it makes its bag NaN.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dtypes import accumulator
from ..launch import launch
from .runs import group_by_slot


def launch_gather_aggregate(
    values: Tensor, slots: Tensor, weights: Tensor, out_dtype: torch.dtype | None = None
) -> Tensor:
    """``[B, D]`` in ``out_dtype``, by default that of ``values``."""
    B, L = slots.shape
    M, D = values.shape
    out = values.new_empty(B, D, dtype=out_dtype)
    if B * D == 0:
        return out
    block_l, block_d = _tile(L, D)
    launch(
        _gather_aggregate_fwd_kernel,
        (B, triton.cdiv(D, block_d)),
        values, slots, weights, out,
        M, *values.stride(), *slots.stride(), *weights.stride(),
        D=D, L=L, BLOCK_L=block_l, BLOCK_D=block_d, ACC=_acc(values.dtype, weights.dtype), num_warps=_warps(block_d),
    )  # fmt: skip
    return out


def launch_weights_backward(grad: Tensor, values: Tensor, slots: Tensor, dtype: torch.dtype) -> Tensor:
    """``grad[b] . values[slots[b, l]]``, ``[B, L]``, in ``dtype``."""
    B, L = slots.shape
    M, D = values.shape
    out = grad.new_empty(B, L, dtype=dtype)
    if B * L == 0:
        return out
    block_l, block_d = _tile(L, D)
    launch(
        _gather_aggregate_bwd_weights_kernel,
        (B * triton.cdiv(L, block_l),),
        grad, values, slots, out,
        M, *grad.stride(), *values.stride(), *slots.stride(),
        D=D, L=L, BLOCK_L=block_l, BLOCK_D=block_d, ACC=_acc(values.dtype, dtype), num_warps=_warps(block_d),
    )  # fmt: skip
    return out


def launch_values_backward(grad: Tensor, slots: Tensor, weights: Tensor, M: int, dtype: torch.dtype) -> Tensor:
    """Dense gradient of the values ``[M, D]``, in ``dtype``."""
    out = grad.new_zeros(M, grad.shape[1], dtype=dtype)
    if slots.numel() and out.numel():
        runs = group_by_slot(slots.clamp(-1, M))  # slots outside the table make two runs at the most
        _launch_sum_runs(grad, weights, *runs, out, min(slots.numel(), M + 2), scatter=True)
    return out


def launch_touched_rows(
    grad: Tensor, slots: Tensor, weights: Tensor, M: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Touched slots ``[U]``, ascending, and their gradient rows ``[U, D]`` in ``dtype``. Reads U on the host.

    Raises:
        IndexError: a slot lies outside [0, M): whoever applies such a row would write outside the table.
    """
    D = grad.shape[1]
    if slots.numel() == 0:
        return slots.new_zeros(0, dtype=torch.int64), grad.new_zeros(0, D, dtype=dtype)
    runs = group_by_slot(slots)
    U, low, high = torch.cat((runs.total, runs.slots[:1], runs.slots[runs.total - 1])).tolist()
    if low < 0 or high >= M:
        raise IndexError(f"gather_aggregate: slots must lie in [0, {M}), got {low if low < 0 else high}")
    out = grad.new_empty(U, D, dtype=dtype)
    if D:
        _launch_sum_runs(grad, weights, *runs, out, U, scatter=False)
    return runs.slots[:U], out


def launch_scatter_rows(ids: Tensor, weights: Tensor, source: Tensor, rows: int) -> Tensor:
    """``out[r] = sum of weights[x, k] * source[x] over ids[x, k] == r``, ``[rows, C]``, in the type of ``weights``."""
    return launch_values_backward(source, ids, weights, rows, weights.dtype)


def _launch_sum_runs(
    grad: Tensor,
    weights: Tensor,
    order: Tensor,
    starts: Tensor,
    run_slots: Tensor,
    count: Tensor,
    out: Tensor,
    most_runs: int,
    scatter: bool,
) -> None:
    M, D = out.shape
    L = weights.shape[1]
    block_e, block_d = _tile(16, D)
    launch(
        _gather_aggregate_bwd_values_kernel,
        (most_runs, triton.cdiv(D, block_d)),
        grad, weights, order, starts, run_slots, count, out,
        M, *grad.stride(), *weights.stride(), *out.stride(),
        D=D, L=L, SCATTER=scatter, BLOCK_E=block_e, BLOCK_D=block_d,
        ACC=_acc(out.dtype, grad.dtype, weights.dtype), num_warps=_warps(block_d),
    )  # fmt: skip


def _tile(rows: int, D: int) -> tuple[int, int]:
    """Rows and columns of a tile: whole rows up to 256 columns, 2,048 elements or fewer in all."""
    block_d = min(triton.next_power_of_2(max(D, 16)), 256)
    block_rows = min(triton.next_power_of_2(max(rows, 1)), 2048 // block_d, 16)
    return block_rows, block_d


def _warps(block_d: int) -> int:
    return 4 if block_d >= 128 else 2


def _acc(*dtypes: torch.dtype) -> tl.dtype:
    return tl.float64 if accumulator(*dtypes) == torch.float64 else tl.float32


@triton.jit
def _narrow(sums, DTYPE: tl.constexpr):
    if tl.bfloat16 == DTYPE:  # Triton has no sound way from float64 to it but through float32
        sums = sums.to(tl.float32)
    return sums.to(DTYPE)


@triton.jit
def _gather_aggregate_fwd_kernel(
    values_ptr, slots_ptr, weights_ptr, out_ptr,
    M, stride_vm, stride_vd, stride_sb, stride_sl, stride_wb, stride_wl,
    D: tl.constexpr, L: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    columns = d < D
    acc = tl.zeros([BLOCK_L, BLOCK_D], dtype=ACC)
    for first in range(0, L, BLOCK_L):
        l = (first + tl.arange(0, BLOCK_L)).to(tl.int64)
        slots = tl.load(slots_ptr + b * stride_sb + l * stride_sl, mask=l < L, other=0).to(tl.int64)
        weights = tl.load(weights_ptr + b * stride_wb + l * stride_wl, mask=l < L, other=0).to(ACC)
        inside = (slots >= 0) & (slots < M)
        weights = tl.where(inside, weights, float("nan"))
        rows = tl.load(
            values_ptr + slots[:, None] * stride_vm + d[None, :].to(tl.int64) * stride_vd,
            mask=((l < L) & inside)[:, None] & columns[None, :],
            other=0,
        )
        acc += weights[:, None] * rows.to(ACC)
    out = tl.sum(acc, axis=0)
    tl.store(out_ptr + b * D + d, _narrow(out, out_ptr.dtype.element_ty), mask=columns)


@triton.jit
def _gather_aggregate_bwd_weights_kernel(
    grad_ptr, values_ptr, slots_ptr, out_ptr,
    M, stride_gb, stride_gd, stride_vm, stride_vd, stride_sb, stride_sl,
    D: tl.constexpr, L: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    blocks: tl.constexpr = (L + BLOCK_L - 1) // BLOCK_L
    b = (tl.program_id(0) // blocks).to(tl.int64)
    l = (tl.program_id(0) % blocks * BLOCK_L + tl.arange(0, BLOCK_L)).to(tl.int64)
    slots = tl.load(slots_ptr + b * stride_sb + l * stride_sl, mask=l < L, other=0).to(tl.int64)
    inside = (slots >= 0) & (slots < M)
    acc = tl.zeros([BLOCK_L, BLOCK_D], dtype=ACC)
    for first in range(0, D, BLOCK_D):
        d = (first + tl.arange(0, BLOCK_D)).to(tl.int64)
        grad = tl.load(grad_ptr + b * stride_gb + d * stride_gd, mask=d < D, other=0).to(ACC)
        rows = tl.load(
            values_ptr + slots[:, None] * stride_vm + d[None, :] * stride_vd,
            mask=((l < L) & inside)[:, None] & (d < D)[None, :],
            other=0,
        )
        acc += grad[None, :] * rows.to(ACC)
    out = tl.where(inside, tl.sum(acc, axis=1), float("nan"))
    tl.store(out_ptr + b * L + l, _narrow(out, out_ptr.dtype.element_ty), mask=l < L)


@triton.jit(do_not_specialize=["M"])
def _gather_aggregate_bwd_values_kernel(
    grad_ptr, weights_ptr, order_ptr, starts_ptr, run_slots_ptr, count_ptr, out_ptr,
    M, stride_gb, stride_gd, stride_wb, stride_wl, stride_om, stride_od,
    D: tl.constexpr, L: tl.constexpr, SCATTER: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_D: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    run = tl.program_id(0).to(tl.int64)
    if run < tl.load(count_ptr):
        d = (tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)).to(tl.int64)
        columns = d < D
        start = tl.load(starts_ptr + run)
        end = tl.load(starts_ptr + run + 1)
        acc = tl.zeros([BLOCK_E, BLOCK_D], dtype=ACC)
        for first in range(start, end, BLOCK_E):
            e = first + tl.arange(0, BLOCK_E)
            entries = tl.load(order_ptr + e, mask=e < end, other=0)
            b = entries // L
            weights = tl.load(weights_ptr + b * stride_wb + (entries % L) * stride_wl, mask=e < end, other=0).to(ACC)
            rows = tl.load(
                grad_ptr + b[:, None] * stride_gb + d[None, :] * stride_gd,
                mask=(e < end)[:, None] & columns[None, :],
                other=0,
            )
            acc += weights[:, None] * rows.to(ACC)
        slot = tl.load(run_slots_ptr + run)
        row = slot if SCATTER else run
        out = _narrow(tl.sum(acc, axis=0), out_ptr.dtype.element_ty)
        tl.store(out_ptr + row * stride_om + d * stride_od, out, mask=columns & (slot >= 0) & (row < M))
