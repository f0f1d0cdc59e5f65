"""Kernels of the sorted backward pass: gradients of the values, and of the weights with them, in one pass.

Sorted by slot, the entries of a slot are a run. The entries are cut into chunks of ``CHUNK``, whatever their runs, so
work is even under any skew and the order of additions is fixed: the same bits every time, with no atomics. A chunk is
walked entry by entry, a lane holding the same columns of every row, so a sum stays in its registers. An entry brings
its gradient row and, for the weights' gradient, which is their dot product, its value row: the first of a run reads
it, the others find it in the cache. Where a run ends within its chunk its sum is stored. A run that a border cuts
leaves a part in each chunk it touches, at the head or the tail. The parts, two a chunk, are rows in the order of where
they go, with -1 for no part between those of different runs. So they are summed the same way, level by level, until one
chunk holds them all, which no border cuts.

Bytes moved at least: the value row of each touched slot read once and its gradient row written once; 12 bytes of sorted
entry, the weight and its gradient for each entry; the entries' gradient rows, L times B * D, come from the cache. The
parts are at most 2 rows of float32 for 64 entries. A dense gradient is filled with zeros before.

There is no second path with atomic additions, chosen by how often slots repeat. An atomic row of float32 is read and
written in memory, 8 * D bytes for each entry; here 4 * D are written for each run and about 100 move for each entry in
its sort. So atomics move fewer bytes where D < 25, and only if no slot repeats: at 2.4 entries a slot (a million slots,
65,536 rows of 32) D < 16. They would also read a value row for each entry and not for each run, need a float32 copy of
a 2-byte gradient, and save no launches: a count of repeats that stays on the GPU has to launch both. None of the shapes
of ``benchmarks/kernels/shapes.py`` favours them, so the sorted path is the fast one and the deterministic one. This is
arithmetic; atomics were not timed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...dtypes import accumulator
from ...launch import ceil_div, launch, power_of_two
from ...triton import acc_type, narrow
from .chunks import add_to_run, chunk_borders, load_rows, store_parts
from .forward import launch_weights_backward
from .sort import BLOCK, SortedEntries, sort_entries
from .tile import LANES, columns_per_lane

CHUNK = 64
MAX_CHUNKS = BLOCK // CHUNK  # that a program walks at once where rows are narrow: it reads no further than the padding
MAX_WARPS = 8
MAX_INT32_ENTRIES = 2**31 - 2 * MAX_CHUNKS * CHUNK  # beyond, int32 would wrap around where the last program ends


class ChunkTile(NamedTuple):
    """What a program takes: chunks and columns, its warps, and the rows that it loads before it adds the first."""

    block_c: int
    block_d: int
    warps: int
    unroll: int


class RunLayout(NamedTuple):
    """Where the sums of a sparse gradient go: the n-th run to the n-th row.

    Attributes:
        runs_before: ``[chunks + 1]`` integers, how many runs begin before each chunk of ``CHUNK`` entries and in all.
        run_slots: int64, one for each row of the gradient: the kernel writes the slot of each run.
    """

    runs_before: Tensor
    run_slots: Tensor


def launch_values_backward(
    grad: Tensor, slots: Tensor, weights: Tensor, M: int, dtype: torch.dtype, values: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Dense gradient of the values ``[M, D]`` in ``dtype`` and, if ``values`` are given, of the weights ``[B, L]``."""
    out = grad.new_zeros(M, grad.shape[1], dtype=dtype)
    if slots.numel() == 0 or out.numel() == 0:
        return out, None if values is None else launch_weights_backward(grad, values, slots, weights.dtype)
    return out, launch_run_sums(sort_entries(slots, M), grad, values, slots, weights, M, out, None)


def launch_scatter_rows(ids: Tensor, weights: Tensor, source: Tensor, rows: int) -> Tensor:
    """``out[r] = sum of weights[x, k] * source[x] over ids[x, k] == r``, ``[rows, C]``, in the type of ``weights``."""
    return launch_values_backward(source, ids, weights, rows, weights.dtype)[0]


def launch_run_sums(
    entries: SortedEntries,
    grad: Tensor,
    values: Tensor | None,
    slots: Tensor,
    weights: Tensor,
    M: int,
    out: Tensor,
    run_layout: RunLayout | None,
) -> Tensor | None:
    """Write the sum of each run to ``out``; the gradient of the weights ``[B, L]`` if ``values`` are given.

    Args:
        entries: of ``slots``, sorted.
        grad: ``[B, D]``; values: ``[M, D]``; slots, weights: ``[B, L]``; B * L and D must not be 0.
        M: rows of the table; entries of other slots have no sum.
        out: contiguous ``[*, D]``; a run is written to the row of its slot or, with ``run_layout``, of its number.
        run_layout: for a sparse gradient, without ``values``.
    """
    grad = grad.contiguous()  # a stride of its own would be another kernel
    D = grad.shape[1]
    rows = (grad,) if values is None else (grad, values)
    tile = _chunk_tile(D, *rows)
    if values is not None and tile.block_d < D:  # no program sees whole rows, which a weight's gradient needs
        launch_run_sums(entries, grad, None, slots, weights, M, out, run_layout)
        return launch_weights_backward(grad, values, slots, weights.dtype)
    E = slots.numel()
    chunks = ceil_div(E, CHUNK)
    acc = accumulator(out.dtype, grad.dtype, weights.dtype)
    parts = grad.new_empty(2 * chunks, D, dtype=acc)
    wide = max(E, M) > MAX_INT32_ENTRIES
    part_rows = slots.new_empty(2 * chunks, dtype=torch.int64 if wide else torch.int32)
    grad_weights = None if values is None else weights.new_empty(weights.shape)
    table = grad if values is None else values  # here and below: a pointer that is not read needs some tensor
    runs_before, run_slots = (out, out) if run_layout is None else run_layout
    launch(
        _gather_aggregate_bwd_entries_kernel,
        (ceil_div(chunks, tile.block_c), ceil_div(D, tile.block_d)),
        entries.slots, entries.order, grad, weights.contiguous(), table, runs_before, run_slots,
        out if grad_weights is None else grad_weights, out, parts, part_rows,
        E, M, chunks, table.stride(1),
        D=D, L=slots.shape[1], ROW_V=table.stride(0), NUMBERED=run_layout is not None,
        DOTS=values is not None, CHUNK=CHUNK, UNROLL=tile.unroll, BLOCK_C=tile.block_c, BLOCK_D=tile.block_d,
        ACC=acc_type(acc), num_warps=tile.warps,
    )  # fmt: skip
    tile = _chunk_tile(D, parts)
    while chunks > 1:  # E parts of the level before, in place of entries
        E, source, source_rows = 2 * chunks, parts, part_rows
        chunks = ceil_div(E, CHUNK)
        parts = source.new_empty(2 * chunks, D)
        part_rows = source_rows.new_empty(2 * chunks)
        launch(
            _gather_aggregate_bwd_parts_kernel,
            (ceil_div(chunks, tile.block_c), ceil_div(D, tile.block_d)),
            source_rows, source, out, parts, part_rows, E, chunks,
            D=D, CHUNK=CHUNK, UNROLL=tile.unroll, BLOCK_C=tile.block_c, BLOCK_D=tile.block_d, num_warps=tile.warps,
        )  # fmt: skip
    return grad_weights


def _chunk_tile(D: int, *rows: Tensor) -> ChunkTile:
    """The tile for ``rows`` that are read.

    A lane holds up to 64 bytes of a row (32 columns of 2 bytes), and where it holds 16 it loads 4 rows at once. Narrow
    rows leave lanes for several chunks, up to ``MAX_CHUNKS``; wide ones take more warps, and then more programs.
    """
    width = LANES * columns_per_lane(*rows)  # columns of a warp, 16 bytes a lane
    block_d = min(power_of_two(D), 4 * width * MAX_WARPS)
    warps = max(1, block_d // (4 * width))
    loads = max(1, block_d // (width * warps))  # of 16 bytes that a lane makes for a row
    return ChunkTile(min(max(1, width // block_d), MAX_CHUNKS), block_d, warps, 4 // loads)


@triton.jit(do_not_specialize=["E", "M", "chunks"])
def _gather_aggregate_bwd_entries_kernel(
    slots_ptr, order_ptr, grad_ptr, weights_ptr, values_ptr, runs_before_ptr, run_slots_ptr, grad_weights_ptr,
    out_ptr, parts_ptr, part_rows_ptr, E, M, chunks, stride_vd,
    D: tl.constexpr, L: tl.constexpr, ROW_V: tl.constexpr, NUMBERED: tl.constexpr,
    DOTS: tl.constexpr, CHUNK: tl.constexpr, UNROLL: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """Sum of ``weight * grad row`` over each run of sorted entries and, with DOTS, the gradient of each weight.

    A program takes ``BLOCK_C`` chunks and ``BLOCK_D`` columns; grid ``(ceil(chunks / BLOCK_C), ceil(D / BLOCK_D))``.

    In: slots (int16, int32 or int64) and order (int64) of ``SortedEntries``; grad ``[B, D]`` and weights ``[B, L]``
    contiguous, E = B * L; with DOTS values ``[M, D]``, whose rows have the stride ROW_V; with NUMBERED runs_before of
    ``RunLayout``.
    Out: out ``[*, D]``, of which rows of whole runs are written; parts ``[2 * chunks, D]`` ACC and part_rows
    ``[2 * chunks]`` int32 or int64, the heads and tails of chunks and their rows, -1 for none; with DOTS grad_weights
    ``[B, L]``; with NUMBERED run_slots of ``RunLayout``.

    ``e`` is a place in the sorted order and ``entry`` the number b * L + l there. Slots and order are padded past the
    end of the last program (``sort_entries``), so their loads need no mask. Each step loads UNROLL entries, and only
    then adds them, so that many loads are in flight.
    """
    POSITION: tl.constexpr = part_rows_ptr.dtype.element_ty  # int64 where an int32 cannot count the entries
    UNSIGNED: tl.constexpr = tl.uint32 if tl.int32 == POSITION else tl.uint64  # divides in fewer instructions
    chunk = tl.program_id(0).to(POSITION) * BLOCK_C + tl.arange(0, BLOCK_C)
    d = (tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)).to(tl.int64)
    columns = (d < D)[None, :]
    borders = chunk_borders(slots_ptr, runs_before_ptr, chunk, chunks, E, M, CHUNK, NUMBERED, POSITION)
    previous, slot = borders.previous_row, borders.first_row
    if NUMBERED:
        run = tl.load(runs_before_ptr + chunk, mask=chunk < chunks, other=0).to(POSITION) - 1
    started_here = chunk < 0  # [BLOCK_C], False
    acc = tl.zeros([BLOCK_C, BLOCK_D], dtype=ACC)
    head = acc
    steps = tl.minimum(E - tl.program_id(0).to(POSITION) * (BLOCK_C * CHUNK), CHUNK)
    for start in range(0, steps, UNROLL):
        loaded: tl.tuple = ()
        for u in tl.static_range(UNROLL):
            e = chunk * CHUNK + start + u
            following = load_rows(slots_ptr, e + 1, None, M, POSITION)
            entry = tl.load(order_ptr + e).to(POSITION)
            inside = slot >= 0
            weight = tl.load(weights_ptr + entry, mask=inside, other=0).to(ACC)
            mask = inside[:, None] & columns
            b = (entry.to(UNSIGNED) // L).to(tl.int64)
            row = tl.load(grad_ptr + b[:, None] * D + d[None, :], mask=mask, other=0)  # [BLOCK_C, BLOCK_D]
            value = row  # without DOTS it is not used
            if DOTS:
                m = slot.to(UNSIGNED).to(tl.int64)
                value = tl.load(values_ptr + (m * ROW_V)[:, None] + (d * stride_vd)[None, :], mask=mask, other=0)
            loaded += ((slot, following, entry, inside, weight, row, value),)
            slot = following
        for u in tl.static_range(UNROLL):
            own, following, entry, inside, weight, row, value = loaded[u]
            row = row.to(ACC)
            starts = own != previous
            dest_row = own
            if NUMBERED:  # slots outside the table come last, so what they add to ``run`` moves no other run
                run += starts.to(POSITION)
                dest_row = tl.where(own >= 0, run, -1)
                tl.store(run_slots_ptr + run, own.to(tl.int64), mask=starts & (own >= 0))
            if DOTS:
                dots = tl.where(inside, tl.sum(row * value.to(ACC), axis=1), float("nan"))
                dots = narrow(dots, grad_weights_ptr.dtype.element_ty)
                tl.store(grad_weights_ptr + entry, dots, mask=chunk * CHUNK + start + u < E)
            addend = weight[:, None] * row
            acc, head, started_here = add_to_run(
                acc, head, started_here, starts, own != following, dest_row, addend, out_ptr, d, columns, D
            )
            previous = own
    store_parts(acc, head, borders, parts_ptr, part_rows_ptr, chunk, chunks, d, columns, D)


@triton.jit(do_not_specialize=["E", "chunks"])
def _gather_aggregate_bwd_parts_kernel(
    rows_ptr, source_ptr, out_ptr, parts_ptr, part_rows_ptr, E, chunks,
    D: tl.constexpr, CHUNK: tl.constexpr, UNROLL: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Sum of each run of parts: the next level of the sums, after entries or after parts.

    A program takes ``BLOCK_C`` chunks and ``BLOCK_D`` columns; grid ``(ceil(chunks / BLOCK_C), ceil(D / BLOCK_D))``.

    In: source ``[E, D]`` and rows ``[E]``: parts and part_rows of the level before.
    Out: out, parts and part_rows as of ``_gather_aggregate_bwd_entries_kernel``, for fewer chunks.
    """
    POSITION: tl.constexpr = rows_ptr.dtype.element_ty
    chunk = tl.program_id(0).to(POSITION) * BLOCK_C + tl.arange(0, BLOCK_C)
    d = (tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)).to(tl.int64)
    columns = (d < D)[None, :]
    borders = chunk_borders(rows_ptr, rows_ptr, chunk, chunks, E, None, CHUNK, False, POSITION)
    previous, dest_row = borders.previous_row, borders.first_row
    started_here = chunk < 0  # [BLOCK_C], False
    acc = tl.zeros([BLOCK_C, BLOCK_D], dtype=source_ptr.dtype.element_ty)
    head = acc
    steps = tl.minimum(E - tl.program_id(0).to(POSITION) * (BLOCK_C * CHUNK), CHUNK)
    for start in range(0, steps, UNROLL):
        loaded: tl.tuple = ()
        for u in tl.static_range(UNROLL):
            e = chunk * CHUNK + start + u
            following = tl.load(rows_ptr + e + 1, mask=e + 1 < E, other=-1)
            part_ptr = source_ptr + (e.to(tl.int64) * D)[:, None] + d[None, :]
            part = tl.load(part_ptr, mask=(dest_row >= 0)[:, None] & columns, other=0)  # [BLOCK_C, BLOCK_D]
            loaded += ((dest_row, following, part),)
            dest_row = following
        for u in tl.static_range(UNROLL):
            own, following, part = loaded[u]
            acc, head, started_here = add_to_run(
                acc, head, started_here, own != previous, own != following, own, part, out_ptr, d, columns, D
            )
            previous = own
    store_parts(acc, head, borders, parts_ptr, part_rows_ptr, chunk, chunks, d, columns, D)
