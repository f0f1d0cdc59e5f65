"""The whole memory read on Triton: three kernels, the activation inside the second.

Where the search kernels select (float64, large K) the activation follows them in plain torch.
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
