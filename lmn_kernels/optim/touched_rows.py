"""The rows of a sparse gradient, each once.

The ops return rows in ascending order, each once, but autograd drops the mark ``is_coalesced`` when it moves a gradient
into ``.grad``, and ``coalesce`` would sort them again. Checking the order of the slots costs little beside that.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .rounding import NARROW_FLOATS


class TouchedRows(NamedTuple):
    """Rows of one step.

    Attributes:
        slots: ``[U]`` int64, each once. While a CUDA graph is captured the first may occur again, with zeros.
        sums: ``[U, D]``, their gradients; where rows were added up, in float32 for a bfloat16 or float16 gradient.
    """

    slots: Tensor
    sums: Tensor


def touches_rows(gradient: Tensor) -> bool:
    """Whether :func:`touched_rows` takes a gradient: sparse rows, or a dense one of zeros, which touches none."""
    if gradient.layout == torch.sparse_coo:
        return gradient.sparse_dim() == 1
    return gradient.layout == torch.strided and not _is_captured(gradient) and not gradient.any()


def touched_rows(gradient: Tensor) -> TouchedRows:
    """The rows of a gradient ``[M, D]`` that :func:`touches_rows` takes, those of one slot added up."""
    if not gradient.is_sparse:
        return TouchedRows(torch.empty(0, dtype=torch.int64, device=gradient.device), gradient[:0])
    slots, rows = gradient._indices()[0].contiguous(), gradient._values()
    if gradient.is_coalesced() or (not _is_captured(gradient) and _ascend(slots)):
        return TouchedRows(slots, rows)
    dtype = torch.float32 if rows.dtype in NARROW_FLOATS else rows.dtype  # their own type loses hundreds of addends
    if _is_captured(gradient):
        return sum_rows_without_waiting(slots, rows, gradient.shape[0], dtype)
    wide = torch.sparse_coo_tensor(slots[None], rows.to(dtype), gradient.shape, check_invariants=False).coalesce()
    return TouchedRows(wide.indices()[0], wide.values())


def _ascend(slots: Tensor) -> bool:
    """Whether slots ``[U]`` ascend, each once, though autograd did not mark their gradient as coalesced.

    On a GPU the host waits for the result, as it does in ``coalesce``, which this check mostly avoids.
    """
    return bool((slots[1:] > slots[:-1]).all())


def _is_captured(gradient: Tensor) -> bool:
    """Whether a CUDA graph is being captured, so that nothing can be read on the host."""
    return gradient.device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def sum_rows_without_waiting(slots: Tensor, rows: Tensor, M: int, dtype: torch.dtype) -> TouchedRows:
    """As :func:`touched_rows`, by Triton kernels: as many rows as before, the last ones zeros for the first slot.

    Each row is a bag of one entry with weight 1, so its gradient by the values is the sum of the rows of each slot.
    """
    from ..gather_aggregate.triton import launch_touched_rows

    ones = torch.ones(len(slots), 1, dtype=dtype, device=rows.device)
    slots, sums, _ = launch_touched_rows(rows, slots.unsqueeze(1).contiguous(), ones, M, dtype, padded=True)
    return TouchedRows(slots, sums)
