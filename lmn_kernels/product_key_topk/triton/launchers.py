"""Launchers of product-key selection: two kernels, and no matrix of scores in memory.

Three pairs of kernels choose the same slots. The first kernel of a pair selects sub-keys on each axis, the second one
selects pairs of them.

- K up to ``MAX_SURVIVORS_K``: ``survivors.py`` finds the few sub-keys that can be among the K best,
  ``pair_selection.py`` sorts them and selects the pairs.
- K up to ``MAX_STREAMING_K``: ``streaming.py`` keeps the K best in a register network.
- float64, whose scores leave no room for an index beside them, and larger K: ``search.py`` scans K times.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ...activation import activate
from ...dtypes import accumulator
from ...gather_aggregate.triton import launch_gather_aggregate, launch_scatter_rows
from ...launch import ceil_div, for_amd, launch, power_of_two
from ...triton import acc_type
from ..metric import metric_term, sparse_score_backward
from ..staircase import staircase, staircase_chunks
from .axis_entries import launch_axis_entries
from .pair_selection import _product_key_topk_lists_fwd_kernel
from .search import _product_key_topk_axis_search_fwd_kernel, _product_key_topk_pairs_search_fwd_kernel
from .streaming import _product_key_topk_axis_fwd_kernel, _product_key_topk_pairs_fwd_kernel
from .survivors import _product_key_topk_survivors_fwd_kernel

TRITON_VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
MAX_SURVIVORS_K = 32  # must not exceed the columns of a tile, BLOCK_N
MAX_STREAMING_K = 128  # a larger network spills
FEW_ROWS = 8192
"""Rows times heads up to which a program takes 16 rows of 2-byte queries and not 64, so that there are enough programs
to fill a large GPU. Measured on an H100, where 64 rows are faster from 16,384 on."""


class MetricTerms(NamedTuple):
    """What the metric adds to dot products (``metric.metric_term``): both None for ``"dot"``.

    Attributes:
        queries: ``[B, H, 2]``, one number for each query half.
        keys: ``[H, 2, N]``, one for each sub-key.
    """

    queries: Tensor | None
    keys: Tensor | None


class RowTile(NamedTuple):
    """Rows that a program of the survivors kernel takes, its warps and the stages of its pipelined loops."""

    block_b: int
    warps: int
    stages: int


def launch_product_key_topk(
    queries: Tensor, keys: Tensor, k: int, metric: str, activation: str | None = None
) -> tuple[Tensor, Tensor]:
    """Scores, or weights where an ``activation`` is named, and slots: both ``[B, H, K]``, best first.

    The launchers below write both into the tensors that they are given.
    """
    B, H, _, _ = queries.shape
    dtype = accumulator(queries.dtype)
    scores = queries.new_empty(B, H, k, dtype=dtype)
    slots = queries.new_empty(B, H, k, dtype=torch.int64)
    if B == 0:
        return scores, slots
    terms = MetricTerms(metric_term(queries, metric, dtype), metric_term(keys, metric, dtype))
    if dtype == torch.float64 or k > MAX_STREAMING_K:
        _launch_search(queries, keys, terms, metric, scores, slots)
        return (scores if activation is None else activate(scores, activation)), slots
    launch_selection = _launch_survivors if k <= MAX_SURVIVORS_K else _launch_streaming
    launch_selection(queries, keys, terms, metric, activation or "none", scores, slots)
    return scores, slots


def _launch_survivors(
    queries: Tensor, keys: Tensor, terms: MetricTerms, metric: str, activation: str, scores: Tensor, slots: Tensor
) -> None:
    B, H, _, C = queries.shape
    N, k = keys.shape[2], slots.shape[2]
    block_k = max(8, power_of_two(k))
    # Random scores have 44 survivors at K = 32, whatever N, and hardly ever 70: one move of ``places`` serves nearly
    # every row, and a list of ``capacity`` overflows for ties and infinities alone.
    places, capacity = 2 * block_k, 3 * block_k
    lists = queries.new_empty(H * 2, B, capacity, dtype=torch.int64)
    counts = queries.new_empty(H * 2, B, dtype=torch.int32)
    tile = _row_tile(B * H, queries.dtype)
    block_n = 64
    launch(
        _product_key_topk_survivors_fwd_kernel, (ceil_div(B, tile.block_b), H * 2),
        queries, keys, *terms, lists, counts, B, H, *queries.stride(), *keys.stride(),
        N=N, C=C, K=k, METRIC=metric, BLOCK_B=tile.block_b, BLOCK_N=block_n, BLOCK_C=_block_c(C, queries.dtype),
        BLOCK_K=block_k, PLACES=places, CAPACITY=capacity, DEPTH=min(6, ceil_div(N, block_n)), ROUNDS=6,
        LOG_N=block_n.bit_length() - 1, PRECISION=_precision(queries.dtype),
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    chunks = staircase_chunks(k, block_k, queries.device)
    launch(
        _product_key_topk_lists_fwd_kernel, (ceil_div(B, 2), H),
        lists, counts, chunks, scores, slots, B, H,
        N=N, K=k, PLACES=places, CAPACITY=capacity, CHUNKS=chunks.shape[0], ACTIVATION=activation,
        BLOCK_K=block_k, LOG_K=block_k.bit_length() - 1, BLOCK_R=2, num_warps=1,
    )  # fmt: skip


def _launch_streaming(
    queries: Tensor, keys: Tensor, terms: MetricTerms, metric: str, activation: str, scores: Tensor, slots: Tensor
) -> None:
    B, H, _, C = queries.shape
    N, k = keys.shape[2], slots.shape[2]
    top_scores = queries.new_empty(B, H, 2, k, dtype=torch.float32)
    top_index = queries.new_empty(B, H, 2, k, dtype=torch.int32)
    ranks = staircase(k, queries.device)
    block_k = power_of_two(k)
    launch(
        _product_key_topk_axis_fwd_kernel, (ceil_div(B, 16), H * 2),
        queries, keys, *terms, top_scores, top_index, B, H, *queries.stride(), *keys.stride(),
        N=N, C=C, K=k, METRIC=metric, BLOCK_B=16, BLOCK_N=max(64, block_k),
        BLOCK_C=_block_c(C, queries.dtype), BLOCK_K=block_k,
        num_warps=8, num_stages=1,  # wider C, 4 warps or more stages spill at some K and type
    )  # fmt: skip
    block_p = power_of_two(ranks.shape[1])
    block_r = max(1, 512 // block_p)
    launch(
        _product_key_topk_pairs_fwd_kernel, (ceil_div(B * H, block_r),),
        top_scores, top_index, ranks, scores, slots, B * H,
        N=N, K=k, P=ranks.shape[1], ACTIVATION=activation,
        BLOCK_R=block_r, BLOCK_P=block_p, BLOCK_K=block_k, num_warps=4,
    )  # fmt: skip


def _launch_search(
    queries: Tensor, keys: Tensor, terms: MetricTerms, metric: str, scores: Tensor, slots: Tensor
) -> None:
    B, H, _, C = queries.shape
    N, k = keys.shape[2], slots.shape[2]
    top_scores = queries.new_empty(B, H, 2, k, dtype=scores.dtype)
    top_index = queries.new_empty(B, H, 2, k, dtype=torch.int32)
    ranks = staircase(k, queries.device)
    launch(
        _product_key_topk_axis_search_fwd_kernel, (ceil_div(B, 16), H * 2),
        queries, keys, *terms, top_scores, top_index, B, H, *queries.stride(), *keys.stride(),
        N=N, C=C, K=k, METRIC=metric, BLOCK_B=16, BLOCK_N=min(power_of_two(N), 32),
        ACC=acc_type(scores.dtype), num_warps=4,
    )  # fmt: skip
    launch(
        _product_key_topk_pairs_search_fwd_kernel, (ceil_div(B * H, 16),),
        top_scores, top_index, ranks, scores, slots, B * H,
        N=N, K=k, P=ranks.shape[1], BLOCK_R=16, BLOCK_P=min(power_of_two(ranks.shape[1]), 64),
        num_warps=4,
    )  # fmt: skip


def _row_tile(rows: int, dtype: torch.dtype) -> RowTile:
    """The tile for ``rows`` queries (B * H) of a type; a wavefront of an AMD GPU does the work of two warps."""
    if dtype == torch.float32:
        return RowTile(32, 4, 1)
    return RowTile(16, 4, 3) if rows <= FEW_ROWS else RowTile(64, 4 if for_amd() else 8, 3)


def _precision(dtype: torch.dtype) -> str:
    """How ``tl.dot`` multiplies: on NVIDIA, float32 as six products of its three bfloat16 parts, on the tensor cores.

    That is as exact as float32 products for magnitudes between 2^-110 and 3.39e38. AMD's matrix cores multiply float32
    natively; Triton 3.5 and the interpreter do not have the six products.
    """
    interpreted = os.environ.get("TRITON_INTERPRET", "0") == "1"
    if dtype != torch.float32 or for_amd() or TRITON_VERSION < (3, 6) or interpreted:
        return "ieee"
    return "bf16x6"


def _block_c(C: int, dtype: torch.dtype) -> int:
    """Columns of a tile of sub-keys; few where rows are no multiples of 16 bytes and each element is a load."""
    widest = 16 if dtype == torch.float32 else 32 if C % 8 else 64
    return max(16, min(power_of_two(C), widest))


def launch_product_key_topk_backward(
    grad: Tensor,
    queries: Tensor,
    keys: Tensor,
    slots: Tensor,
    weights: Tensor | None,
    metric: str,
    activation: str,
    needs: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the queries and of the keys from those of the chosen scores or, if they are given, the weights."""
    entries = launch_axis_entries(grad, slots, weights, keys.shape[2], activation)
    return sparse_score_backward(*entries, queries, keys, metric, needs, bag=_bag, scatter=launch_scatter_rows)


def _bag(table: Tensor, ids: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
    """``bag`` of ``metric.sparse_score_backward``."""
    return launch_gather_aggregate(table, ids, weights, out_dtype=dtype)
