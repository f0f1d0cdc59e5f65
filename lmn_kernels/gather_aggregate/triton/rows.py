"""The sparse gradient of the values: one row for each touched slot, in ascending order.

It is the sorted backward pass with a run going to the row of its number, so each chunk of entries must know how many
runs begin before it: one more launch and a running sum over the chunks. How many rows there are is known on the GPU
alone; a coalesced sparse tensor must know it on the host, which waits. What may not wait, a CUDA graph being captured,
takes a row for each entry instead, of which those past the last run repeat a slot with zeros.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...launch import launch
from .bags import launch_weights_backward
from .sort import SortedEntries, sort_entries
from .sums import CHUNK, launch_sums

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
    runs_until = _count_runs(entries, E)
    runs_before = runs_until - runs_until.diff(prepend=runs_until.new_zeros(1))
    if padded:
        rows = entries.slots[:1].long().repeat(E)
        out = grad.new_zeros(E, D, dtype=dtype)
    else:
        U, low = torch.stack((runs_until[-1], entries.order[:E].amin())).tolist()
        if low < 0:
            raise IndexError(f"gather_aggregate: slots must lie in [0, {M}), got {_stray(slots, M)}")
        rows = slots.new_empty(U, dtype=torch.int64)
        out = grad.new_empty(U, D, dtype=dtype)
    return rows, out, launch_sums(entries, grad, values, slots, weights, out, (runs_before, rows))


def _count_runs(entries: SortedEntries, E: int) -> Tensor:
    """How many runs begin in each chunk and before, ``[E / CHUNK]``."""
    chunks = triton.cdiv(E, CHUNK)
    counts = entries.slots.new_empty(chunks)
    launch(
        _gather_aggregate_count_runs_kernel, (triton.cdiv(chunks, BLOCK_CHUNKS),),
        entries.slots, counts, E, chunks,
        CHUNK=CHUNK, BLOCK_C=BLOCK_CHUNKS, num_warps=4,
    )  # fmt: skip
    return counts.cumsum(0, dtype=counts.dtype)


def _stray(slots: Tensor, M: int) -> int:
    """A slot outside [0, M)."""
    low, high = (int(bound) for bound in slots.aminmax())
    return low if low < 0 else high


@triton.jit(do_not_specialize=["E", "chunks"])
def _gather_aggregate_count_runs_kernel(
    slots_ptr, counts_ptr, E, chunks, CHUNK: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    chunk = tl.program_id(0).to(slots_ptr.dtype.element_ty) * BLOCK_C + tl.arange(0, BLOCK_C)
    e = (chunk * CHUNK)[:, None] + tl.arange(0, CHUNK)[None, :]
    slots = tl.load(slots_ptr + e, mask=e < E, other=-1)
    before = tl.load(slots_ptr + e - 1, mask=(e > 0) & (e < E), other=-1)
    counts = tl.sum((slots != before).to(tl.int32), axis=1)
    tl.store(counts_ptr + chunk, counts.to(counts_ptr.dtype.element_ty), mask=chunk < chunks)
