"""The sparse gradient of the values: one row for each touched slot, in ascending order.

It is the sorted backward pass with the n-th run going to the n-th row, so each chunk of entries needs the number of
runs that begin before it: one more launch and a running sum over the chunks. The number of rows is computed on the GPU,
but the host needs it to build a coalesced sparse tensor, and waits for it. Meanwhile the GPU computes the weights'
gradient, in a pass of its own: it reads value rows once more, but the host launches the rest before the GPU is idle.
While a CUDA graph is being captured the host cannot wait, so the gradient has a row for each entry instead, of which
those past the last run repeat a slot with zeros. The weights' gradient is computed in the same way there, so that its
bits are those of an eager step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...launch import ceil_div, launch
from .forward import launch_weights_backward
from .sort import SortedEntries, sort_entries
from .sorted_backward import CHUNK, MAX_INT32_ENTRIES, RunLayout, launch_run_sums

BLOCK_CHUNKS = 16


def launch_touched_rows(
    grad: Tensor,
    slots: Tensor,
    weights: Tensor,
    M: int,
    dtype: torch.dtype,
    values: Tensor | None = None,
    padded: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Touched slots, ascending, their gradient rows in ``dtype`` and, if ``values`` are given, the weights' gradient.

    Returns:
        Slots ``[U]`` and rows ``[U, D]``, U the number of touched slots, which is read on the host. With ``padded`` it
        is not: U is B * L, and rows past the touched ones are zeros for one of the touched slots.

    Raises:
        IndexError: without ``padded``, a slot lies outside [0, M): an optimiser would write outside the table. With
            ``padded``, such a slot has no gradient.
    """
    E, D = slots.numel(), grad.shape[1]
    if E * D == 0:
        rows = slots.reshape(-1).long() if padded else torch.unique(slots).long()
        grad_weights = None if values is None else launch_weights_backward(grad, values, slots, weights.dtype)
        return rows, grad.new_zeros(rows.shape[0], D, dtype=dtype), grad_weights
    entries = sort_entries(slots, M)
    runs_before = _count_runs(entries, E, M)
    read = None if padded else _start_reading(runs_before[-1], entries.slots[E - 1])  # runs, and the last slot
    grad_weights = None if values is None else launch_weights_backward(grad, values, slots, weights.dtype)
    if read is None:
        rows = entries.slots[:1].long().clamp(max=M - 1).repeat(E)  # the lowest slot; it is M if all are outside
        out = grad.new_zeros(E, D, dtype=dtype)
    else:
        U, last = read()
        if last >= M:  # M stands for slots outside the table, and they are sorted last
            raise IndexError(f"gather_aggregate: slots must lie in [0, {M}), got {_stray(slots, M)}")
        rows = slots.new_empty(U, dtype=torch.int64)
        out = grad.new_empty(U, D, dtype=dtype)
    launch_run_sums(entries, grad, None, slots, weights, M, out, RunLayout(runs_before, rows))
    return rows, out, grad_weights


def _start_reading(*scalars: Tensor) -> Callable[[], list[int]]:
    """Start to copy integers to the host; the function returned waits for these copies only, and gives them."""
    host = [scalar.to("cpu", non_blocking=True) for scalar in scalars]  # from a GPU, into pinned memory
    if scalars[0].device.type != "cuda":
        return lambda: [int(scalar) for scalar in host]
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(scalars[0].device))

    def read() -> list[int]:
        copied.synchronize()
        return [int(scalar) for scalar in host]

    return read


def _count_runs(entries: SortedEntries, E: int, M: int) -> Tensor:
    """``[chunks + 1]``: runs that begin before each chunk and, last, in all; slots outside the table do not count."""
    chunks = ceil_div(E, CHUNK)
    counts = entries.slots.new_empty(chunks, dtype=torch.int64 if E > MAX_INT32_ENTRIES else torch.int32)
    before = counts.new_zeros(chunks + 1)
    launch(
        _gather_aggregate_count_runs_kernel, (ceil_div(chunks, BLOCK_CHUNKS),),
        entries.slots, counts, E, M, chunks,
        CHUNK=CHUNK, BLOCK_C=BLOCK_CHUNKS, num_warps=4,
    )  # fmt: skip
    torch.cumsum(counts, 0, dtype=counts.dtype, out=before[1:])
    return before


def _stray(slots: Tensor, M: int) -> int:
    """A slot outside [0, M)."""
    low, high = (int(bound) for bound in slots.aminmax())
    return low if low < 0 else high


@triton.jit(do_not_specialize=["E", "M", "chunks"])
def _gather_aggregate_count_runs_kernel(
    slots_ptr, counts_ptr, E, M, chunks, CHUNK: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """How many runs of slots in [0, M) begin in each chunk.

    A program takes ``BLOCK_C`` chunks; grid ``(ceil(chunks / BLOCK_C),)``.

    In: slots ``[>= E]`` int16, int32 or int64, sorted. Out: counts ``[chunks]`` int32 or int64.
    """
    chunk = tl.program_id(0).to(counts_ptr.dtype.element_ty) * BLOCK_C + tl.arange(0, BLOCK_C)
    e = (chunk * CHUNK)[:, None] + tl.arange(0, CHUNK)[None, :]  # [BLOCK_C, CHUNK]
    slots = tl.load(slots_ptr + e, mask=e < E, other=-1)
    before = tl.load(slots_ptr + e - 1, mask=(e > 0) & (e < E), other=-1)
    counts = tl.sum(((slots != before) & (slots < M)).to(tl.int32), axis=1)
    tl.store(counts_ptr + chunk, counts.to(counts_ptr.dtype.element_ty), mask=chunk < chunks)
