"""Kernels of the sorted backward pass: gradients of the values, and of the weights with them, in one pass.

Sorted by slot, the entries of a slot are a run. The entries are cut into chunks of ``CHUNK``, whatever their runs, so
work is even under any skew and the order of additions is fixed: the same bits every time, with no atomics. A chunk is
walked entry by entry, a lane holding the same columns of every row, so a sum stays in its registers. An entry brings
its gradient row and, for the weights' gradient, which is their dot product, its value row: the first of a run reads
it, the others find it in the cache. Where a run ends within its chunk its sum is stored. A run cut by a border leaves a
part in each chunk it touches, at the head or the tail; the parts, two a chunk, are rows sorted by where they go, so
they are summed the same way, level by level, until one chunk holds them all.

Floor: the value row of each touched slot read once and its gradient row written once; 12 bytes of sorted entry, the
weight and its gradient for each entry; the entries' gradient rows, L times B * D, come from the cache. The parts are at
most 2 rows of float32 for 64 entries. A dense gradient is filled with zeros before.

Why there is no second way with atomic additions, chosen by how often slots repeat. An atomic row of float32 is read and
written in memory, 8 * D bytes for each entry; here 4 * D are written for each run and about 100 move for each entry in
its sort. So atomics move fewer bytes where D < 25, and only if no slot repeats: at 2.4 entries a slot (a million slots,
65,536 rows of 32) D < 16. They would also read a value row for each entry and not for each run, need a float32 copy of
a 2-byte gradient, and gain no launches: a count of repeats that stays on the GPU has to launch both ways. No shape of
``benchmarks/kernels/shapes.py`` is on their side, so the sorted way is the fast mode and the deterministic one. This is
arithmetic; atomics were not timed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...dtypes import accumulator
from ...launch import ceil_div, launch, power_of_two
from .forward import launch_weights_backward
from .sort import BLOCK, SortedEntries, sort_entries
from .tile import LANES, acc_type, columns_per_lane, narrow

CHUNK = 64
MOST_CHUNKS = BLOCK // CHUNK  # that a program walks side by side where rows are narrow; it ends in the sort's padding
MOST_WARPS = 8
MOST_NARROW = 2**31 - 2 * MOST_CHUNKS * CHUNK  # entries, and slots, that an int32 counts past the end of a program


def launch_values_backward(
    grad: Tensor, slots: Tensor, weights: Tensor, M: int, dtype: torch.dtype, values: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Dense gradient of the values ``[M, D]`` in ``dtype`` and, if ``values`` are given, of the weights ``[B, L]``."""
    out = grad.new_zeros(M, grad.shape[1], dtype=dtype)
    if slots.numel() == 0 or out.numel() == 0:
        return out, None if values is None else launch_weights_backward(grad, values, slots, weights.dtype)
    return out, launch_sums(sort_entries(slots, M), grad, values, slots, weights, M, out, None)


def launch_scatter_rows(ids: Tensor, weights: Tensor, source: Tensor, rows: int) -> Tensor:
    """``out[r] = sum of weights[x, k] * source[x] over ids[x, k] == r``, ``[rows, C]``, in the type of ``weights``."""
    return launch_values_backward(source, ids, weights, rows, weights.dtype)[0]


def launch_sums(
    entries: SortedEntries,
    grad: Tensor,
    values: Tensor | None,
    slots: Tensor,
    weights: Tensor,
    M: int,
    out: Tensor,
    numbers: tuple[Tensor, Tensor] | None,
) -> Tensor | None:
    """Write the sum of each run to ``out``; the gradient of the weights ``[B, L]`` if ``values`` are given.

    Args:
        entries: of ``slots``, sorted.
        grad: ``[B, D]``; values: ``[M, D]``; slots, weights: ``[B, L]``; B * L and D must not be 0.
        M: rows of the table; entries of other slots have no sum.
        out: contiguous ``[*, D]``; a run is written to the row of its slot or, with ``numbers``, of its number.
        numbers: for a sparse gradient, without ``values``: how many runs begin before each chunk of ``CHUNK`` entries,
            and where the slot of each run is written.
    """
    grad = grad.contiguous()  # a stride of its own would be another kernel
    D = grad.shape[1]
    rows = (grad,) if values is None else (grad, values)
    block_c, block_d, warps, unroll = _tile(D, *rows)
    if values is not None and block_d < D:  # no program sees whole rows
        launch_sums(entries, grad, None, slots, weights, M, out, numbers)
        return launch_weights_backward(grad, values, slots, weights.dtype)
    E = slots.numel()
    chunks = ceil_div(E, CHUNK)
    acc = accumulator(out.dtype, grad.dtype, weights.dtype)
    parts = grad.new_empty(2 * chunks, D, dtype=acc)
    wide = max(E, M) > MOST_NARROW
    part_rows = slots.new_empty(2 * chunks, dtype=torch.int64 if wide else torch.int32)
    grad_weights = None if values is None else weights.new_empty(weights.shape)
    table = grad if values is None else values
    runs_before, run_slots = (out, out) if numbers is None else numbers
    launch(
        _gather_aggregate_bwd_entries_kernel,
        (ceil_div(chunks, block_c), ceil_div(D, block_d)),
        entries.slots, entries.order, grad, weights.contiguous(), table, runs_before, run_slots,
        out if grad_weights is None else grad_weights, out, parts, part_rows,
        E, M, chunks, table.stride(1),
        D=D, L=slots.shape[1], ROW_V=table.stride(0), NUMBERED=numbers is not None,
        DOTS=values is not None, CHUNK=CHUNK, UNROLL=unroll, BLOCK_C=block_c, BLOCK_D=block_d, ACC=acc_type(acc),
        num_warps=warps,
    )  # fmt: skip
    block_c, block_d, warps, unroll = _tile(D, parts)
    while chunks > 1:
        E, source, source_rows = 2 * chunks, parts, part_rows
        chunks = ceil_div(E, CHUNK)
        parts = source.new_empty(2 * chunks, D)
        part_rows = source_rows.new_empty(2 * chunks)
        launch(
            _gather_aggregate_bwd_parts_kernel,
            (ceil_div(chunks, block_c), ceil_div(D, block_d)),
            source_rows, source, out, parts, part_rows, E, chunks,
            D=D, CHUNK=CHUNK, UNROLL=unroll, BLOCK_C=block_c, BLOCK_D=block_d, num_warps=warps,
        )  # fmt: skip
    return grad_weights


def _tile(D: int, *rows: Tensor) -> tuple[int, int, int, int]:
    """Chunks and columns of a program, its warps, and the entries whose rows it loads before it adds the first.

    A lane holds up to 64 bytes of a row (32 columns of 2 bytes), and where it holds 16 it loads 4 rows at once.
    """
    vector = columns_per_lane(*rows)
    width = LANES * vector  # columns of a warp, 16 bytes a lane
    block_d = min(power_of_two(D), 4 * width * MOST_WARPS)
    warps = max(1, block_d // (4 * width))
    loads = max(1, block_d // (width * warps))  # of 16 bytes that a lane makes for a row
    return min(max(1, width // block_d), MOST_CHUNKS), block_d, warps, 4 // loads


@triton.jit
def _load_rows(rows_ptr, e, mask, M, POSITION: tl.constexpr):
    """Row that each entry or part goes to; -1 where it is masked or, if there is an M, outside the table."""
    rows = tl.load(rows_ptr + e) if mask is None else tl.load(rows_ptr + e, mask=mask, other=-1)
    if M is not None:
        rows = tl.where(rows < M, rows, -1)
    return rows.to(POSITION)


@triton.jit
def _chunk_parts(
    rows_ptr, runs_before_ptr, chunk, chunks, E, M, CHUNK: tl.constexpr, NUMBERED: tl.constexpr, POSITION: tl.constexpr
):  # fmt: skip
    """Row before each chunk and first row in it; the rows its two parts go to; whether the cut run began in it.

    A chunk that a run goes through has that run's sum as its head; its tail is zeros, so that parts of a run stay
    neighbours. -1 stands for no row.
    """
    first = chunk * CHUNK
    end = tl.minimum(first + CHUNK, E)
    row = _load_rows(rows_ptr, first, first < E, M, POSITION)
    last = _load_rows(rows_ptr, first - 1, (first > 0) & (first < E), M, POSITION)
    final = _load_rows(rows_ptr, end - 1, first < E, M, POSITION)
    following = _load_rows(rows_ptr, end, first + CHUNK < E, M, POSITION)
    head, tail = row, final
    if NUMBERED:
        head = tl.load(runs_before_ptr + chunk, mask=chunk < chunks, other=0).to(row.dtype) - 1
        tail = tl.load(runs_before_ptr + chunk + 1, mask=chunk + 1 < chunks, other=0).to(row.dtype) - 1
    head = tl.where((row == last) & (row >= 0), head, -1)
    tail = tl.where((final == following) & (final >= 0), tail, -1)
    return last, row, head, tail, final != last


@triton.jit
def _add_to_run(acc, head, whole, starts, ends, goes_to, addend, out_ptr, d, columns, D: tl.constexpr):
    """Add a row to the run of each chunk, and store a sum where the run ends.

    A run that began in the chunk is whole and goes to its row; another one is kept as the head of its chunk.
    """
    whole = whole | starts
    acc = tl.where(starts[:, None], 0, acc) + addend
    head = tl.where(whole[:, None], head, acc)
    out = narrow(acc, out_ptr.dtype.element_ty)
    done = ends & whole & (goes_to >= 0)
    tl.store(out_ptr + (goes_to.to(tl.int64) * D)[:, None] + d[None, :], out, mask=done[:, None] & columns)
    return acc, head, whole


@triton.jit
def _store_parts(
    acc, head, head_row, tail_row, tail_whole, parts_ptr, part_rows_ptr, chunk, chunks, d, columns, D: tl.constexpr
):  # fmt: skip
    """Store the two parts of each chunk and the rows that they go to."""
    tl.store(part_rows_ptr + 2 * chunk, head_row, mask=chunk < chunks)
    tl.store(part_rows_ptr + 2 * chunk + 1, tail_row, mask=chunk < chunks)
    part = parts_ptr + (chunk.to(tl.int64) * 2 * D)[:, None] + d[None, :]
    tl.store(part, head, mask=(head_row >= 0)[:, None] & columns)
    tl.store(part + D, tl.where(tail_whole[:, None], acc, 0), mask=(tail_row >= 0)[:, None] & columns)


@triton.jit(do_not_specialize=["E", "M", "chunks"])
def _gather_aggregate_bwd_entries_kernel(
    slots_ptr, order_ptr, grad_ptr, weights_ptr, values_ptr, runs_before_ptr, run_slots_ptr, grad_weights_ptr,
    out_ptr, parts_ptr, part_rows_ptr, E, M, chunks, stride_vd,
    D: tl.constexpr, L: tl.constexpr, ROW_V: tl.constexpr, NUMBERED: tl.constexpr,
    DOTS: tl.constexpr, CHUNK: tl.constexpr, UNROLL: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    POSITION: tl.constexpr = part_rows_ptr.dtype.element_ty  # int64 where an int32 cannot count the entries
    UNSIGNED: tl.constexpr = tl.uint32 if tl.int32 == POSITION else tl.uint64  # divides in fewer instructions
    chunk = tl.program_id(0).to(POSITION) * BLOCK_C + tl.arange(0, BLOCK_C)
    d = (tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)).to(tl.int64)
    columns = (d < D)[None, :]
    last, slot, head_row, tail_row, tail_whole = _chunk_parts(
        slots_ptr, runs_before_ptr, chunk, chunks, E, M, CHUNK, NUMBERED, POSITION
    )
    if NUMBERED:
        run = tl.load(runs_before_ptr + chunk, mask=chunk < chunks, other=0).to(POSITION) - 1
    whole = chunk < 0
    acc = tl.zeros([BLOCK_C, BLOCK_D], dtype=ACC)
    head = acc
    most = tl.minimum(E - tl.program_id(0).to(POSITION) * (BLOCK_C * CHUNK), CHUNK)
    for start in range(0, most, UNROLL):
        loaded: tl.tuple = ()
        for u in tl.static_range(UNROLL):
            e = chunk * CHUNK + start + u
            following = _load_rows(slots_ptr, e + 1, None, M, POSITION)
            entry = tl.load(order_ptr + e).to(POSITION)
            inside = slot >= 0
            weight = tl.load(weights_ptr + entry, mask=inside, other=0).to(ACC)
            wanted = inside[:, None] & columns
            b = (entry.to(UNSIGNED) // L).to(tl.int64)
            row = tl.load(grad_ptr + b[:, None] * D + d[None, :], mask=wanted, other=0)
            value = row
            if DOTS:
                m = slot.to(UNSIGNED).to(tl.int64)
                value = tl.load(values_ptr + (m * ROW_V)[:, None] + (d * stride_vd)[None, :], mask=wanted, other=0)
            loaded += ((slot, following, entry, inside, weight, row, value),)
            slot = following
        for u in tl.static_range(UNROLL):
            own, following, entry, inside, weight, row, value = loaded[u]
            row = row.to(ACC)
            starts = own != last
            goes_to = own
            if NUMBERED:
                run += starts.to(POSITION)
                goes_to = tl.where(own >= 0, run, -1)
                tl.store(run_slots_ptr + run, own.to(tl.int64), mask=starts & (own >= 0))
            if DOTS:
                dots = tl.where(inside, tl.sum(row * value.to(ACC), axis=1), float("nan"))
                dots = narrow(dots, grad_weights_ptr.dtype.element_ty)
                tl.store(grad_weights_ptr + entry, dots, mask=chunk * CHUNK + start + u < E)
            acc, head, whole = _add_to_run(
                acc, head, whole, starts, own != following, goes_to, weight[:, None] * row, out_ptr, d, columns, D
            )
            last = own
    _store_parts(
        acc, head, head_row, tail_row, tail_whole, parts_ptr, part_rows_ptr, chunk, chunks, d, columns, D
    )  # fmt: skip


@triton.jit(do_not_specialize=["E", "chunks"])
def _gather_aggregate_bwd_parts_kernel(
    rows_ptr, source_ptr, out_ptr, parts_ptr, part_rows_ptr, E, chunks,
    D: tl.constexpr, CHUNK: tl.constexpr, UNROLL: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    POSITION: tl.constexpr = rows_ptr.dtype.element_ty
    chunk = tl.program_id(0).to(POSITION) * BLOCK_C + tl.arange(0, BLOCK_C)
    d = (tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)).to(tl.int64)
    columns = (d < D)[None, :]
    last, goes_to, head_row, tail_row, tail_whole = _chunk_parts(
        rows_ptr, rows_ptr, chunk, chunks, E, None, CHUNK, False, POSITION
    )
    whole = chunk < 0
    acc = tl.zeros([BLOCK_C, BLOCK_D], dtype=source_ptr.dtype.element_ty)
    head = acc
    most = tl.minimum(E - tl.program_id(0).to(POSITION) * (BLOCK_C * CHUNK), CHUNK)
    for start in range(0, most, UNROLL):
        loaded: tl.tuple = ()
        for u in tl.static_range(UNROLL):
            e = chunk * CHUNK + start + u
            following = tl.load(rows_ptr + e + 1, mask=e + 1 < E, other=-1)
            part = tl.load(
                source_ptr + (e.to(tl.int64) * D)[:, None] + d[None, :],
                mask=(goes_to >= 0)[:, None] & columns,
                other=0,
            )
            loaded += ((goes_to, following, part),)
            goes_to = following
        for u in tl.static_range(UNROLL):
            own, following, part = loaded[u]
            acc, head, whole = _add_to_run(
                acc, head, whole, own != last, own != following, own, part, out_ptr, d, columns, D
            )
            last = own
    _store_parts(
        acc, head, head_row, tail_row, tail_whole, parts_ptr, part_rows_ptr, chunk, chunks, d, columns, D
    )  # fmt: skip
