"""Read a factored memory for every pair of a user and a category."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmn_kernels import gather_aggregate
from lmn_model.modules.factored_memory import FactoredMemoryNetwork

IntArray = NDArray[np.integer[Any]]
ROWS = 1 << 16
"""Pairs or slots that are read at a time."""


@torch.no_grad()
def read_familiarity(
    network: FactoredMemoryNetwork, place: int, categories: Tensor, users: Tensor
) -> NDArray[np.float32]:
    """The familiarity of every pair, the projection of its read-out on its bound code: float32 ``[U, C]``.

    Args:
        network: the memory.
        place: which item feature.
        categories: ``[C]`` ids of it.
        users: ``[U]`` ids.
    """
    C, block = len(categories), network.block
    item_codes = network.item_codes[categories + network.offsets[place]]  # [C, D]
    found = []
    for chunk in users.split(max(1, ROWS // C)):
        item = _items(network, place, categories.repeat(len(chunk)))  # [R, F]
        slots, weights = (each[:, place].contiguous() for each in network.pair_slots(item, chunk.repeat_interleave(C)))
        read = gather_aggregate(block.values, slots, weights, backend=block.backend)
        bound = item_codes * network.user_codes[chunk].unsqueeze(1)  # [R / C, C, D]
        found.append((read.to(bound.dtype).view_as(bound) * bound).mean(-1).float().cpu())
    return torch.cat(found).numpy()


def slot_norms(network: FactoredMemoryNetwork) -> NDArray[np.float32]:
    """Root mean square of each value row, float32 ``[N, N]``; that of a bound code is 1."""
    N = network.block.keys.shape[2]
    chunks = network.block.values.detach().split(ROWS)
    return torch.cat([chunk.float().square().mean(-1).sqrt().cpu() for chunk in chunks]).view(N, N).numpy()


def item_keys(network: FactoredMemoryNetwork, place: int, ids: Tensor) -> IntArray:
    """The best sub-key of axis 0 for ids of an item feature, which is that of their pairs with any user."""
    slots = network.pair_slots(_items(network, place, ids), torch.zeros_like(ids)).slots[:, place, 0]
    return np.asarray(slots.div(network.block.keys.shape[2], rounding_mode="floor").cpu().numpy())


def user_keys(network: FactoredMemoryNetwork, ids: Tensor) -> IntArray:
    """The best sub-key of axis 1 for ids of users."""
    slots = network.pair_slots(_items(network, 0, torch.zeros_like(ids)), ids).slots[:, 0, 0]
    return np.asarray((slots % network.block.keys.shape[2]).cpu().numpy())


def _items(network: FactoredMemoryNetwork, place: int, ids: Tensor) -> Tensor:
    """Items ``[R, F]`` with these ids of one feature; the other features are padding and are not read."""
    item = ids.new_zeros(len(ids), len(network.offsets))
    item[:, place] = ids
    return item
