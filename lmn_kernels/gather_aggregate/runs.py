"""Group entries by slot: the transpose of a bag, for the torch backend.

Entries (row, position) of ``slots [B, L]`` are sorted by slot; a run is the entries of one slot. On the CPU slot and
entry number share one integer, which NumPy sorts with vector instructions: several times as fast as a stable sort of
the slots that carries the entry numbers along, and in the same order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Runs(NamedTuple):
    """Entries grouped by slot.

    Attributes:
        order: ``[E]`` int64, entry numbers b * L + l sorted by slot, in order of the entries within a slot.
        starts: ``[U]`` int64, where each run begins in ``order``.
        slots: ``[U]`` int64, the slot of each run, ascending.
    """

    order: Tensor
    starts: Tensor
    slots: Tensor


def group_by_slot(slots: Tensor) -> Runs:
    """Group the entries of ``slots [B, L]``; E = B * L must not be 0."""
    entries = slots.reshape(-1)
    sorted_slots, order = _sort(entries)
    begins = torch.ones_like(sorted_slots, dtype=torch.bool)
    torch.ne(sorted_slots[1:], sorted_slots[:-1], out=begins[1:])
    starts = begins.nonzero().squeeze(1)
    return Runs(order, starts, sorted_slots[starts].long())


def _sort(entries: Tensor) -> tuple[Tensor, Tensor]:
    """Slots in ascending order and the int64 number of each's entry, equal slots in order of their entries."""
    E = entries.shape[0]
    # packed = slot << shift | entry number, which orders by slot and then by entry
    low, high = (int(bound) for bound in entries.aminmax())
    shift = (E - 1).bit_length()
    bits = high.bit_length() + shift
    if entries.device.type != "cpu" or low < 0 or bits > 63:
        return entries.sort(stable=True)
    dtype = np.dtype(np.int32 if bits <= 31 else np.int64)
    packed: npt.NDArray[np.signedinteger[Any]] = entries.numpy().astype(dtype) << shift | np.arange(E, dtype=dtype)
    packed.sort()
    return torch.from_numpy(packed >> shift), torch.from_numpy(packed & ((1 << shift) - 1)).long()
