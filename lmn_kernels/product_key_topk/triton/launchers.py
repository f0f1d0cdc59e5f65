"""Triton kernels of product-key selection: two, and scores never in memory.

1. The axis kernel streams the sub-keys past a tile of query halves, turns each score into an integer whose order is the
   contract's order (the float's bits made monotone, then the reversed index), and keeps the K best in registers.
2. The pair kernel looks at the staircase of rank pairs alone (see ``staircase.py``), picks the K best sums the same
   way, and applies the activation.

The integer leaves no room for 64-bit scores, and a register network none for a large K. For float64, and for K above
``LARGEST_NETWORK``, two search kernels do the same steps by K scans, each for the best score after the last one found:
slow, exact, and no buffer at all.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...activation import activate
from ...dtypes import accumulator
from ...gather_aggregate.triton import launch_gather_aggregate, launch_scatter_rows
from ...launch import launch
from ..metric import metric_term, sparse_score_backward
from ..staircase import staircase
from .search import _product_key_topk_axis_search_fwd_kernel, _product_key_topk_pairs_search_fwd_kernel
from .streaming import _product_key_topk_axis_fwd_kernel, _product_key_topk_pairs_fwd_kernel

LARGEST_NETWORK = 128


def launch_product_key_topk(
    queries: Tensor, keys: Tensor, k: int, metric: str, activation: str | None = None
) -> tuple[Tensor, Tensor]:
    """Scores, or weights where an ``activation`` is named, and slots: both ``[B, H, K]``, best first."""
    B, H, _, C = queries.shape
    N = keys.shape[2]
    dtype = accumulator(queries.dtype)
    scores = queries.new_empty(B, H, k, dtype=dtype)
    slots = queries.new_empty(B, H, k, dtype=torch.int64)
    if B == 0:
        return scores, slots
    top_scores = queries.new_empty(B, H, 2, k, dtype=dtype)
    top_index = queries.new_empty(B, H, 2, k, dtype=torch.int32)
    ranks = staircase(k, queries.device)
    query_term = metric_term(queries, metric, dtype)
    key_term = metric_term(keys, metric, dtype)
    axis_args = (
        queries, keys, query_term, key_term, top_scores, top_index,
        B, H, *queries.stride(), *keys.stride(),
    )  # fmt: skip
    pair_args = (top_scores, top_index, ranks, scores, slots, B * H)
    if dtype == torch.float64 or k > LARGEST_NETWORK:
        acc = tl.float64 if dtype == torch.float64 else tl.float32
        launch(
            _product_key_topk_axis_search_fwd_kernel, (triton.cdiv(B, 16), H * 2), *axis_args,
            N=N, C=C, K=k, METRIC=metric, BLOCK_B=16, BLOCK_N=min(triton.next_power_of_2(N), 32), ACC=acc, num_warps=4,
        )  # fmt: skip
        launch(
            _product_key_topk_pairs_search_fwd_kernel, (triton.cdiv(B * H, 16),), *pair_args,
            N=N, K=k, P=ranks.shape[1], BLOCK_R=16, BLOCK_P=min(triton.next_power_of_2(ranks.shape[1]), 64),
            num_warps=4,
        )  # fmt: skip
        return (scores if activation is None else activate(scores, activation)), slots
    block_k = triton.next_power_of_2(k)
    block_n = max(64, block_k)
    block_c = max(16, min(triton.next_power_of_2(C), 32 if queries.dtype == torch.float32 else 64))
    launch(
        _product_key_topk_axis_fwd_kernel, (triton.cdiv(B, 16), H * 2), *axis_args,
        N=N, C=C, K=k, METRIC=metric, BLOCK_B=16, BLOCK_N=block_n, BLOCK_C=block_c, BLOCK_K=block_k,
        num_warps=8 if block_k > 8 else 4, num_stages=1,  # wider C, 4 warps or more stages spill at some K and type
    )  # fmt: skip
    block_p = triton.next_power_of_2(ranks.shape[1])
    block_r = max(1, 512 // block_p)
    launch(
        _product_key_topk_pairs_fwd_kernel, (triton.cdiv(B * H, block_r),), *pair_args,
        N=N, K=k, P=ranks.shape[1], ACTIVATION=activation or "none",
        BLOCK_R=block_r, BLOCK_P=block_p, BLOCK_K=block_k, num_warps=4,
    )  # fmt: skip
    return scores, slots


def launch_product_key_topk_backward(
    grad_scores: Tensor, queries: Tensor, keys: Tensor, slots: Tensor, metric: str, needs: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the queries and of the keys from those of the chosen scores."""
    return sparse_score_backward(
        grad_scores, queries, keys, slots, metric, needs, bag=_bag, scatter=launch_scatter_rows
    )


def _bag(table: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    return launch_gather_aggregate(table, ids, weights, out_dtype=weights.dtype)
