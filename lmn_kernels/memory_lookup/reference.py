"""The whole memory read in plain torch."""

from __future__ import annotations

from torch import Tensor

from ..activation import activate
from ..gather_aggregate.reference import gather_aggregate_reference
from ..product_key_topk.reference import product_key_topk_reference


def memory_lookup_reference(
    queries: Tensor, keys: Tensor, values: Tensor, k: int, metric: str, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Output ``[B, D]``, slots and weights ``[B, H, K]``; heads add up."""
    scores, slots = product_key_topk_reference(queries, keys, k, metric)
    weights = activate(scores, activation)
    return gather_aggregate_reference(values, slots.flatten(1), weights.flatten(1)), slots, weights
