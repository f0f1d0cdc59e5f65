"""Bring equal slots together: the transpose of a bag, for the torch backend.

Entries (row, position) of ``slots [B, L]`` are sorted by slot; a run is the entries of one slot. Nothing here looks
at a value on the host: arrays have their largest possible size and the number of runs stays on the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Runs(NamedTuple):
    """Entries grouped by slot.

    Attributes:
        order: ``[E]`` int64, entry numbers b * L + l sorted by slot, in order of the entries within a slot.
        starts: ``[E + 1]`` int64, where each run begins in ``order``; E after the last run.
        slots: ``[E]`` int64, the slot of each run; undefined after the last run.
        total: ``[1]`` int64, the number of runs.
    """

    order: Tensor
    starts: Tensor
    slots: Tensor
    total: Tensor


def group_by_slot(slots: Tensor) -> Runs:
    """Group the entries of ``slots [B, L]``; E = B * L must not be 0."""
    sorted_slots, order = slots.reshape(-1).sort(stable=True)
    entries = order.shape[0]
    begins = torch.ones_like(sorted_slots, dtype=torch.bool)
    begins[1:] = sorted_slots[1:] != sorted_slots[:-1]
    run = begins.cumsum(0) - 1  # [E]: the run of each sorted entry
    places = torch.arange(entries, device=slots.device)
    starts = torch.full((entries + 1,), entries, dtype=torch.int64, device=slots.device)
    starts.scatter_reduce_(0, run, places, "amin")
    run_slots = torch.zeros_like(order).scatter_(0, run, sorted_slots.long())
    return Runs(order, starts, run_slots, run[-1:] + 1)
