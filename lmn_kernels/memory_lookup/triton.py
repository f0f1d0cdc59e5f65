"""The whole memory read on Triton: three kernels.

1. ``product_key_topk/triton/survivors.py`` scores the sub-keys and finds those that can be among the K best.
2. ``product_key_topk/triton/pair_selection.py`` selects K pairs, which are slots, and applies the activation.
3. ``gather_aggregate/triton/forward.py`` sums the value rows of the slots by their weights.

Larger K and float64 take other kernels for 1 and 2 (``product_key_topk/triton/launchers.py``); with
``search.py`` the activation follows in plain torch.
"""

from __future__ import annotations

from torch import Tensor

from ..gather_aggregate.triton import launch_gather_aggregate
from ..product_key_topk.triton import launch_product_key_topk


def launch_memory_lookup(
    queries: Tensor, keys: Tensor, values: Tensor, k: int, metric: str, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Output ``[B, D]``, slots and weights ``[B, H, K]``; heads add up."""
    weights, slots = launch_product_key_topk(queries, keys, k, metric, activation)
    return launch_gather_aggregate(values, slots.flatten(1), weights.flatten(1)), slots, weights
