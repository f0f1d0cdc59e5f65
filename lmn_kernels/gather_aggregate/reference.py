"""Weighted sum of value rows in plain torch: the CPU path, and what the Triton kernels are checked against.

The forward pass and the gradient of the values are one operation: ``embedding_bag``. Forward, a bag is the L slots of
a row; backward, with the entries sorted by slot, a bag is the run of gradient rows that one slot receives. So no tensor
of size ``[B, L, D]`` exists: the weights' gradient and types that must be widened take chunks of rows that stay in the
cache.

On the CPU a large gradient costs less to compute than its fresh memory costs to map page by page. It is therefore
computed in chunks, whose memory is reused, and collected in memory of an earlier gradient (``recycled.py``).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dtypes import accumulator
from ..huge_pages import huge_zeros
from .recycled import recycled_empty
from .runs import group_by_slot

CPU_CHUNK_BYTES = 4 << 20  # measured: 2 to 8 MiB are within noise for the sums, 4 is best for the weights' gradient
GPU_CHUNK_BYTES = 256 << 20  # a GPU wants few large launches; this only bounds the memory


def gather_aggregate_reference(values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    """``sum_l weights[b, l] * values[slots[b, l]]``, ``[B, D]``, in the type of ``values``."""
    B, L = slots.shape
    D = values.shape[1]
    dtype = accumulator(values.dtype, weights.dtype)
    _check_range(slots, values.shape[0])
    if B * L * D == 0:
        return values.new_zeros(B, D)
    if values.dtype == dtype:
        return F.embedding_bag(slots, values, mode="sum", per_sample_weights=weights.to(dtype))
    out = values.new_empty(B, D)
    for rows in _row_chunks(B, L * D * dtype.itemsize, values.device):
        gathered = values[slots[rows].long()].to(dtype)  # [b, L, D]
        out[rows] = torch.bmm(weights[rows].to(dtype).unsqueeze(1), gathered).squeeze(1).to(values.dtype)
    return out


def weights_backward_reference(grad: Tensor, values: Tensor, slots: Tensor, dtype: torch.dtype) -> Tensor:
    """``grad[b] . values[slots[b, l]]``, ``[B, L]``, in ``dtype``."""
    B, L = slots.shape
    D = values.shape[1]
    wide = accumulator(values.dtype, dtype)
    out = grad.new_zeros(B, L, dtype=dtype)
    if B * L * D == 0:
        return out
    chunks = _row_chunks(B, L * D * wide.itemsize, values.device)
    buffer = values.new_empty(chunks[0].stop * L, D)
    for rows in chunks:
        entries = slots[rows].reshape(-1)
        gathered = torch.index_select(values, 0, entries, out=buffer[: entries.shape[0]]).view(-1, L, D)
        out[rows] = torch.bmm(grad[rows].to(wide).unsqueeze(1), gathered.to(wide).mT).squeeze(1).to(dtype)
    return out


def values_backward_reference(
    grad: Tensor, slots: Tensor, weights: Tensor, M: int, dtype: torch.dtype, values: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Dense gradient of the values ``[M, D]`` in ``dtype`` and, if ``values`` are given, of the weights ``[B, L]``."""
    rows, sums, grad_weights = touched_rows_reference(grad, slots, weights, M, dtype, values)
    return huge_zeros(M, grad.shape[1], dtype=dtype, device=grad.device).index_copy_(0, rows, sums), grad_weights


def touched_rows_reference(
    grad: Tensor,
    slots: Tensor,
    weights: Tensor,
    M: int,
    dtype: torch.dtype,
    values: Tensor | None = None,
    padded: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Touched slots ``[U]``, ascending, their gradient rows ``[U, D]`` and, if ``values`` are given, the weights' one.

    With ``padded``, U is B * L: rows past the touched ones are zeros for the first of the slots.
    """
    rows, sums = _sum_runs(grad, slots, weights, M, dtype)
    if padded:
        more = slots.numel() - rows.shape[0]
        rows = torch.cat((rows, rows[:1].expand(more)))
        sums = torch.cat((sums, sums.new_zeros(more, sums.shape[1])))
    grad_weights = None if values is None else weights_backward_reference(grad, values, slots, weights.dtype)
    return rows, sums, grad_weights


def _sum_runs(grad: Tensor, slots: Tensor, weights: Tensor, M: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Touched slots ``[U]``, ascending, and their gradient rows ``[U, D]`` in ``dtype``."""
    B, L = slots.shape
    D = grad.shape[1]
    if B * L == 0:
        return slots.new_zeros(0, dtype=torch.int64), grad.new_zeros(0, D, dtype=dtype)
    wide = accumulator(dtype, grad.dtype, weights.dtype)
    order, starts, run_slots = group_by_slot(slots)  # [E], [U], [U]
    U = starts.shape[0]
    on_cpu = grad.device.type == "cpu"
    sums = recycled_empty(U, D, dtype, max_rows=min(B * L, M)) if on_cpu else grad.new_empty(U, D, dtype=dtype)
    if D == 0:
        return run_slots, sums
    bags = torch.div(order, L, rounding_mode="floor")  # [E]: the row of grad that each sorted entry receives
    entry_weights = weights.reshape(-1).index_select(0, order).to(wide)  # [E]
    wide_grad = grad.to(wide)
    chunks = _row_chunks(U, D * wide.itemsize, grad.device)
    # Chunk by chunk, the entries [begin, end) of its runs; each run is a bag of embedding_bag.
    bounds = [*starts[[runs.start for runs in chunks]].tolist(), B * L]
    for runs, (begin, end) in zip(chunks, pairwise(bounds), strict=True):
        sums[runs] = F.embedding_bag(
            bags[begin:end], wide_grad, starts[runs] - begin, mode="sum", per_sample_weights=entry_weights[begin:end]
        )
    return run_slots, sums


def scatter_rows_reference(ids: Tensor, weights: Tensor, source: Tensor, rows: int) -> Tensor:
    """``out[r] = sum of weights[x, k] * source[x] over ids[x, k] == r``, ``[rows, C]``, in the type of ``weights``."""
    return values_backward_reference(source, ids, weights, rows, weights.dtype)[0]


def _row_chunks(rows: int, bytes_per_row: int, device: torch.device) -> list[slice]:
    chunk = max(1, (CPU_CHUNK_BYTES if device.type == "cpu" else GPU_CHUNK_BYTES) // bytes_per_row)
    return [slice(start, min(start + chunk, rows)) for start in range(0, rows, chunk)]


def _check_range(slots: Tensor, M: int) -> None:
    if slots.numel() == 0:
        return
    low, high = (int(bound) for bound in slots.aminmax())
    if low < 0 or high >= M:
        raise IndexError(f"gather_aggregate: slots must lie in [0, {M}), got {low if low < 0 else high}")
