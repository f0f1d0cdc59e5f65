"""Kernels that take the bags in their own order: the forward pass, and the gradient of the weights alone.

A program is one warp and a tile is rows by columns, 16 bytes of a row in each lane. Each row belongs to another bag, so
a lane sums columns of one bag and needs no other lane. With few bags, too few to fill a GPU, rows of a tile share a bag
instead, which shortens the chain of loads that a bag waits for. A lane issues its four loads of 16 bytes before it uses
the first. (A program of two warps has registers for one only, if as many programs as possible are to run at a time, and
the assembler then issues them one by one: seen in the machine code for sm_90.)

Bytes moved at least: the value rows, B * L * D elements, or each touched row once where the cache holds them; B * L
slots and weights and B * D of output or gradient. The loads hint the cache to keep value rows longest
(``evict_last``). A slot outside [0, M) is never dereferenced: it makes its bag, or its weight's gradient, NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...launch import ceil_div, launch, power_of_two
from ...triton import acc_type, narrow
from .tile import LANES, columns_per_lane

LOADS_IN_FLIGHT = 4
FEW_BAGS = 2048  # up to here rows of a tile share a bag; not measured on a GPU


class BagTile(NamedTuple):
    """What a program takes at a time.

    Attributes:
        block_b: bags.
        split: rows of the tile that share a bag; the tile has ``block_b * split``.
        block_d: columns.
        unroll: rows that a lane loads before it uses the first.
    """

    block_b: int
    split: int
    block_d: int
    unroll: int


def launch_gather_aggregate(
    values: Tensor, slots: Tensor, weights: Tensor, out_dtype: torch.dtype | None = None
) -> Tensor:
    """``[B, D]`` in ``out_dtype``, by default that of ``values``."""
    B, L = slots.shape
    M, D = values.shape
    out = values.new_empty(B, D, dtype=out_dtype)
    if B * D == 0:
        return out
    tile = _bag_tile(B, L, D, values)
    launch(
        _gather_aggregate_fwd_kernel,
        (ceil_div(B, tile.block_b), ceil_div(D, tile.block_d)),
        values, slots, weights, out,
        B, M, values.stride(1), *slots.stride(), *weights.stride(),
        D=D, L=L, ROW_V=values.stride(0), BLOCK_B=tile.block_b, SPLIT=tile.split,
        BLOCK_D=tile.block_d, UNROLL=tile.unroll, ACC=acc_type(values.dtype, weights.dtype), num_warps=1,
    )  # fmt: skip
    return out


def launch_weights_backward(grad: Tensor, values: Tensor, slots: Tensor, dtype: torch.dtype) -> Tensor:
    """``grad[b] . values[slots[b, l]]``, ``[B, L]``, in ``dtype``."""
    B, L = slots.shape
    M, D = values.shape
    out = grad.new_empty(B, L, dtype=dtype)
    if B * L == 0:
        return out
    grad = grad.contiguous()  # a stride of its own would be another kernel
    tile = _bag_tile(B, L, D, grad, values)
    launch(
        _gather_aggregate_bwd_weights_kernel,
        (ceil_div(B, tile.block_b),),
        grad, values, slots, out,
        B, M, values.stride(1), *slots.stride(),
        D=D, L=L, ROW_V=values.stride(0), BLOCK_B=tile.block_b, SPLIT=tile.split,
        BLOCK_D=tile.block_d, UNROLL=tile.unroll, ACC=acc_type(values.dtype, dtype), num_warps=1,
    )  # fmt: skip
    return out


def _bag_tile(B: int, L: int, D: int, *rows: Tensor) -> BagTile:
    """The tile for ``rows`` that are read; there are two, whatever B is: a new batch size compiles nothing."""
    width = LANES * columns_per_lane(*rows)  # columns of a warp, 16 bytes a lane
    block_d = min(power_of_two(D), width * LOADS_IN_FLIGHT)
    tile_rows = max(1, width // block_d)
    split = min(tile_rows, power_of_two(L)) if B <= FEW_BAGS else 1
    return BagTile(tile_rows // split, split, block_d, LOADS_IN_FLIGHT // max(1, block_d // width))


@triton.jit
def _load_slots(slots_ptr, b, l, valid, M, stride_sb, stride_sl):
    """Slots int64 of entries (b, l), -1 where not ``valid``, and which of them lie in the table."""
    slots = tl.load(slots_ptr + b * stride_sb + l * stride_sl, mask=valid, other=-1).to(tl.int64)
    return slots, (slots >= 0) & (slots < M)


@triton.jit(do_not_specialize=["B", "M"])
def _gather_aggregate_fwd_kernel(
    values_ptr, slots_ptr, weights_ptr, out_ptr,
    B, M, stride_vd, stride_sb, stride_sl, stride_wb, stride_wl,
    D: tl.constexpr, L: tl.constexpr, ROW_V: tl.constexpr, BLOCK_B: tl.constexpr, SPLIT: tl.constexpr,
    BLOCK_D: tl.constexpr, UNROLL: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """``out[b] = sum_l weights[b, l] * values[slots[b, l]]``.

    A program takes ``BLOCK_B`` bags and ``BLOCK_D`` columns; grid ``(ceil(B / BLOCK_B), ceil(D / BLOCK_D))``.

    In: values ``[M, D]`` and weights ``[B, L]`` of any float types, slots ``[B, L]`` int32 or int64; ROW_V is the
    stride of value rows.
    Out: ``[B, D]`` contiguous, of any float type; sums are kept in ACC.
    """
    row = tl.arange(0, BLOCK_B * SPLIT)
    b = (tl.program_id(0) * BLOCK_B + row // SPLIT).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    columns = (d.to(tl.int64) * stride_vd)[None, :]
    acc = tl.zeros([BLOCK_B * SPLIT, BLOCK_D], dtype=ACC)  # a row sums every SPLIT-th entry of its bag
    for first in range(0, L, UNROLL * SPLIT):
        loaded: tl.tuple = ()
        for u in tl.static_range(UNROLL):
            l = (first + u * SPLIT + row % SPLIT).to(tl.int64)
            valid = (b < B) & (l < L)
            slots, inside = _load_slots(slots_ptr, b, l, valid, M, stride_sb, stride_sl)
            weights = tl.load(weights_ptr + b * stride_wb + l * stride_wl, mask=valid, other=0).to(ACC)
            weights = tl.where(inside | ~valid, weights, float("nan"))
            rows = tl.load(
                values_ptr + (slots * ROW_V)[:, None] + columns,
                mask=inside[:, None] & (d < D)[None, :],
                other=0,
                eviction_policy="evict_last",
            )
            loaded += ((weights, rows),)
        for u in tl.static_range(UNROLL):
            weights, rows = loaded[u]
            acc += weights[:, None] * rows.to(ACC)
    if SPLIT > 1:
        acc = tl.sum(tl.reshape(acc, [BLOCK_B, SPLIT, BLOCK_D]), axis=1)  # [BLOCK_B, BLOCK_D]
    b = (tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)).to(tl.int64)
    out = narrow(acc, out_ptr.dtype.element_ty)
    tl.store(out_ptr + b[:, None] * D + d[None, :], out, mask=(b < B)[:, None] & (d < D)[None, :])


@triton.jit(do_not_specialize=["B", "M"])
def _gather_aggregate_bwd_weights_kernel(
    grad_ptr, values_ptr, slots_ptr, out_ptr,
    B, M, stride_vd, stride_sb, stride_sl,
    D: tl.constexpr, L: tl.constexpr, ROW_V: tl.constexpr, BLOCK_B: tl.constexpr,
    SPLIT: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """``out[b, l] = grad[b] . values[slots[b, l]]``.

    A program takes ``BLOCK_B`` bags, ``BLOCK_D`` columns at a time; grid ``(ceil(B / BLOCK_B),)``.

    In: grad ``[B, D]`` contiguous and values ``[M, D]`` of any float types, slots ``[B, L]`` int32 or int64; ROW_V is
    the stride of value rows.
    Out: ``[B, L]`` contiguous, of any float type; sums are kept in ACC.
    """
    row = tl.arange(0, BLOCK_B * SPLIT)
    b = (tl.program_id(0) * BLOCK_B + row // SPLIT).to(tl.int64)
    for first in range(0, L, UNROLL * SPLIT):
        dots: tl.tuple = ()  # UNROLL sums [BLOCK_B * SPLIT]; a tuple cannot be assigned to, so each step makes another
        for _ in tl.static_range(UNROLL):
            dots += (tl.zeros([BLOCK_B * SPLIT], dtype=ACC),)
        for start in range(0, D, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            columns = (d < D)[None, :]
            grad = tl.load(grad_ptr + b[:, None] * D + d[None, :], mask=(b < B)[:, None] & columns, other=0).to(ACC)
            loaded: tl.tuple = ()
            for u in tl.static_range(UNROLL):
                l = (first + u * SPLIT + row % SPLIT).to(tl.int64)
                slots, inside = _load_slots(slots_ptr, b, l, (b < B) & (l < L), M, stride_sb, stride_sl)
                loaded += (
                    tl.load(
                        values_ptr + (slots * ROW_V)[:, None] + (d.to(tl.int64) * stride_vd)[None, :],
                        mask=inside[:, None] & columns,
                        other=0,
                        eviction_policy="evict_last",
                    ),
                )
            sums: tl.tuple = ()
            for u in tl.static_range(UNROLL):
                sums += (dots[u] + tl.sum(grad * loaded[u].to(ACC), axis=1),)
            dots = sums
        for u in tl.static_range(UNROLL):
            l = (first + u * SPLIT + row % SPLIT).to(tl.int64)
            valid = (b < B) & (l < L)
            _, inside = _load_slots(slots_ptr, b, l, valid, M, stride_sb, stride_sl)
            out = narrow(tl.where(inside, dots[u], float("nan")), out_ptr.dtype.element_ty)
            tl.store(out_ptr + b * L + l, out, mask=valid)
