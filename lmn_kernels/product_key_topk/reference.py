"""Product-key selection in plain torch: the CPU path, and what the Triton kernels are checked against.

``torch.topk`` breaks ties as it likes, so scores are turned into integers whose order is the contract's order: the
float's bits made monotone in the high half, the reversed index in the low half. No two are equal, hence ``topk`` of
them is exact and deterministic. For float64, whose bits fill the word, a stable sort does the same. Rows are taken in
chunks, so that the scores of a chunk stay in the cache and no ``[B, N]`` matrix is held.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..dtypes import accumulator
from ..gather_aggregate.reference import gather_aggregate_reference, scatter_rows_reference
from .metric import combine_terms, metric_term, sparse_score_backward
from .staircase import staircase

CHUNK_BYTES = 4 << 20
_LOW = (1 << 31) - 1


def product_key_topk_reference(queries: Tensor, keys: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    """Scores and slots ``[B, H, K]``, best first; see :func:`lmn_kernels.product_key_topk`."""
    B, H, _, _ = queries.shape
    N = keys.shape[2]
    dtype = accumulator(queries.dtype)
    scores = queries.new_empty(B, H, k, dtype=dtype)
    slots = queries.new_empty(B, H, k, dtype=torch.int64)
    wide_keys = keys.to(dtype)
    key_term = metric_term(keys, metric, dtype)
    chunk = max(1, CHUNK_BYTES // max(1, H * 2 * N * dtype.itemsize))
    for start in range(0, B, chunk):
        rows = slice(start, start + chunk)
        axis_scores = score_sub_keys(queries[rows].to(dtype), wide_keys, key_term, metric)
        scores[rows], slots[rows] = best_pairs(*best_first(axis_scores, k), N)
    return scores, slots


def score_sub_keys(queries: Tensor, keys: Tensor, key_term: Tensor | None, metric: str) -> Tensor:
    """Scores ``[B, H, 2, N]`` of query halves ``[B, H, 2, C]`` against every sub-key ``[H, 2, N, C]``."""
    dots = torch.einsum("bhac,hanc->bhan", queries, keys)
    query_term = metric_term(queries, metric, queries.dtype)
    return combine_terms(dots, None if query_term is None else query_term.unsqueeze(-1), key_term, metric)


def best_first(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best of ``[..., N]`` and their positions: higher first, NaN last, equal ones by position."""
    scores = torch.where(scores == 0, 0.0, scores)  # -0.0 equals 0.0
    if scores.dtype == torch.float64:
        bits = scores.view(torch.int64)
        ordered = bits ^ ((bits >> 63) & torch.iinfo(torch.int64).max)
        ordered = ordered.masked_fill(scores.isnan(), torch.iinfo(torch.int64).min)
        position = ordered.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    else:
        bits = scores.view(torch.int32)
        ordered = bits ^ ((bits >> 31) & torch.iinfo(torch.int32).max)
        ordered = ordered.masked_fill(scores.isnan(), torch.iinfo(torch.int32).min)
        reversed_position = _LOW - torch.arange(scores.shape[-1], device=scores.device)
        ranked = (ordered.to(torch.int64) << 32) | reversed_position
        position = _LOW - (ranked.topk(k, dim=-1).values & _LOW)
    return scores.gather(-1, position), position


def best_pairs(scores: Tensor, sub_keys: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """The K best sums ``[..., K]`` of two axes ``[..., 2, K]``, best first on each, and their slots i * N + j."""
    k = scores.shape[-1]
    ranks = staircase(k, scores.device).long()  # [2, P]
    first, second = scores[..., 0, ranks[0]], scores[..., 1, ranks[1]]  # [..., P]
    sums, chosen = best_first(add_scores(first, second), k)
    i = sub_keys[..., 0, :].gather(-1, ranks[0][chosen])
    j = sub_keys[..., 1, :].gather(-1, ranks[1][chosen])
    return sums.masked_fill(sums.isnan(), -torch.inf), i * N + j


def add_scores(first: Tensor, second: Tensor) -> Tensor:
    """``first + second``, where -inf wins over +inf and only NaN gives NaN, so that better ranks give better sums."""
    sums = first + second
    return sums.masked_fill(sums.isnan() & ~first.isnan() & ~second.isnan(), -torch.inf)


def product_key_topk_backward_reference(
    grad_scores: Tensor, queries: Tensor, keys: Tensor, slots: Tensor, metric: str, needs: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the queries and of the keys from those of the chosen scores."""
    return sparse_score_backward(
        grad_scores, queries, keys, slots, metric, needs, bag=_bag, scatter=scatter_rows_reference
    )


def _bag(table: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    return gather_aggregate_reference(table.to(weights.dtype), ids, weights)
