"""The sparse gradient of the values: one row for each touched slot, in ascending order.

It is the sorted backward pass with a run going to the row of its number, so each chunk of entries must know how many
runs begin before it: one more launch and a running sum over the chunks. How many rows there are is known on the GPU
alone; a coalesced sparse tensor must know it on the host, which waits. Meanwhile the GPU makes the weights' gradient,
in a pass of its own: it reads value rows once more, but the host launches the rest before the GPU has nothing to do.
What may not wait, a CUDA graph being captured, takes a row for each entry instead, of which those past the last run
repeat a slot with zeros; it makes the weights' gradient in the same way, so that its bits are those of an eager step.
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
from .sorted_backward import CHUNK, MOST_NARROW, launch_sums

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
        IndexError: without ``padded``, a slot lies outside [0, M): whoever applies such a row would write outside the
            table. With ``padded``, such a slot has no gradient.
    """
    E, D = slots.numel(), grad.shape[1]
    if E * D == 0:
        rows = slots.reshape(-1).long() if padded else torch.unique(slots).long()
        grad_weights = None if values is None else launch_weights_backward(grad, values, slots, weights.dtype)
        return rows, grad.new_zeros(rows.shape[0], D, dtype=dtype), grad_weights
    entries = sort_entries(slots, M)
    runs_before = _count_runs(entries, E, M)
    read = None if padded else _start_reading(runs_before[-1], entries.slots[E - 1])
    grad_weights = None if values is None else launch_weights_backward(grad, values, slots, weights.dtype)
    if read is None:
        rows = entries.slots[:1].long().clamp(max=M - 1).repeat(E)
        out = grad.new_zeros(E, D, dtype=dtype)
    else:
        U, last = read()
        if last >= M:
            raise IndexError(f"gather_aggregate: slots must lie in [0, {M}), got {_stray(slots, M)}")
        rows = slots.new_empty(U, dtype=torch.int64)
        out = grad.new_empty(U, D, dtype=dtype)
    launch_sums(entries, grad, None, slots, weights, M, out, (runs_before, rows))
    return rows, out, grad_weights


def _start_reading(*numbers: Tensor) -> Callable[[], list[int]]:
    """Copy numbers to the host without waiting; what is returned waits for these copies alone, and gives them."""
    host = [number.to("cpu", non_blocking=True) for number in numbers]  # from a GPU, into pinned memory
    if numbers[0].device.type != "cuda":
        return lambda: [int(number) for number in host]
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(numbers[0].device))

    def read() -> list[int]:
        copied.synchronize()
        return [int(number) for number in host]

    return read


def _count_runs(entries: SortedEntries, E: int, M: int) -> Tensor:
    """How many runs begin before each chunk and, last, in all; those of slots outside the table left out."""
    chunks = ceil_div(E, CHUNK)
    counts = entries.slots.new_empty(chunks, dtype=torch.int64 if E > MOST_NARROW else torch.int32)
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
    chunk = tl.program_id(0).to(counts_ptr.dtype.element_ty) * BLOCK_C + tl.arange(0, BLOCK_C)
    e = (chunk * CHUNK)[:, None] + tl.arange(0, CHUNK)[None, :]
    slots = tl.load(slots_ptr + e, mask=e < E, other=-1)
    before = tl.load(slots_ptr + e - 1, mask=(e > 0) & (e < E), other=-1)
    counts = tl.sum(((slots != before) & (slots < M)).to(tl.int32), axis=1)
    tl.store(counts_ptr + chunk, counts.to(counts_ptr.dtype.element_ty), mask=chunk < chunks)
