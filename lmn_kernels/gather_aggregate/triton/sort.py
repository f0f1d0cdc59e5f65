"""The entries in the order of their slots: torch's stable radix sort, on keys no wider than the slots need.

Entry e = b * L + l of ``slots [B, L]``, E in all, is sorted by its slot. Keys of 16 bits take two passes of 8 bits,
keys of 32 take four. The sort can be captured in a CUDA graph and gives the same result on every run. A hand-written
radix sort, two passes of 11 bits for a million slots and fewer bytes, took 1.9 times as long at its best: see
docs/performance/bounds.md.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...launch import ceil_div, launch

BLOCK = 1024


class SortedEntries(NamedTuple):
    """Entries in the order of their slots, then of their numbers.

    Attributes:
        slots: ascending, int16, int32 or int64; M for an entry whose slot is outside [0, M), and past the E-th.
        order: int64, the entry numbers b * L + l; past the E-th, numbers from E on.
    """

    slots: Tensor
    order: Tensor


def sort_entries(slots: Tensor, M: int) -> SortedEntries:
    """Sort the entries of ``slots [B, L]``; E = B * L and M must not be 0.

    The result is padded to blocks of ``BLOCK`` and one more, so that each entry has a next one.
    """
    E = slots.numel()
    length = ceil_div(E, BLOCK) * BLOCK + 1
    keys = slots.new_empty(length, dtype=narrowest(M))
    launch(
        _gather_aggregate_sort_keys_kernel, (ceil_div(length, BLOCK),),
        slots.contiguous(), keys, E, M, length,
        BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return SortedEntries(*keys.sort(stable=True))


def narrowest(largest: int) -> torch.dtype:
    """The narrowest integer type from int16 on that holds ``largest``."""
    return next(dtype for dtype in (torch.int16, torch.int32, torch.int64) if largest <= torch.iinfo(dtype).max)


@triton.jit(do_not_specialize=["E", "M", "length"])
def _gather_aggregate_sort_keys_kernel(slots_ptr, keys_ptr, E, M, length, BLOCK: tl.constexpr):
    """Keys to sort by: the slot of each entry, M for those outside [0, M) and past the last entry.

    A program takes ``BLOCK`` keys; grid ``(ceil(length / BLOCK),)``.

    In: slots ``[E]`` int32 or int64. Out: keys ``[length]``, the narrowest integers that hold M.
    """
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    slots = tl.load(slots_ptr + e, mask=e < E, other=-1).to(tl.int64)
    keys = tl.where((slots >= 0) & (slots < M), slots, M)
    tl.store(keys_ptr + e, keys.to(keys_ptr.dtype.element_ty), mask=e < length)
