"""Product-key selection in plain torch: the CPU path, and what the Triton kernels are checked against.

``torch.topk`` breaks ties as it likes, so scores are turned into integers whose order is the contract's order: the
float's bits made monotone in the high half, the reversed index in the low half. No two are equal, hence ``topk`` of
them is exact and deterministic. For float64, whose bits fill the word, a stable sort does the same.

On the CPU that is slow, and almost never needed: ``topk`` of the floats themselves is exact unless the K-th best score
is tied with one that was left out, so only the rows where it is are ranked again. Before it, maxima of ``GROUP``
neighbours leave K groups, and K * GROUP scores, to look at. Rows are taken in chunks, so that the scores of a chunk
stay in the cache and no ``[B, N]`` matrix is held.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..dtypes import accumulator
from ..gather_aggregate.reference import gather_aggregate_reference, scatter_rows_reference
from .metric import combine_terms, metric_term, sparse_score_backward
from .staircase import staircase

CHUNK_BYTES = 4 << 20
GROUP = 8
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
    fast = scores.device.type == "cpu" and scores.dtype == torch.float32
    position = _positions_unless_tied(scores, k) if fast else _positions(scores, k)
    return scores.gather(-1, position), position


def _positions_unless_tied(scores: Tensor, k: int) -> Tensor:
    rows = scores.reshape(-1, scores.shape[-1])
    N = rows.shape[1]
    groups = N // GROUP
    if N % GROUP == 0 and groups >= 2 * k:
        top = rows.view(-1, groups, GROUP).amax(-1).topk(k + 1)
        members = torch.arange(GROUP, device=rows.device)
        candidates = (top.indices[:, :k, None] * GROUP + members).flatten(1)  # [R, k * GROUP]
        best = rows.gather(1, candidates).topk(k + 1)
        position = candidates.gather(1, best.indices[:, :k])
        left_out = torch.maximum(top.values[:, k], best.values[:, k])
    else:
        best = rows.topk(min(k + 1, N))
        position = best.indices[:, :k]
        left_out = best.values[:, k] if k < N else torch.full_like(best.values[:, 0], -torch.inf)
    chosen = best.values[:, :k]
    position = (_ordered(chosen) | _reversed(position)).sort(dim=1, descending=True).values.bitwise_and_(_LOW)
    position = _LOW - position
    doubtful = (chosen[:, -1] == left_out) & (k < N) | chosen[:, 0].isnan()  # topk puts NaN first
    if doubtful.any():
        position[doubtful] = _positions(rows[doubtful], k)
    return position.view(*scores.shape[:-1], k)


def _positions(scores: Tensor, k: int) -> Tensor:
    if scores.dtype == torch.float64:
        bits = torch.where(scores == 0, 0.0, scores).view(torch.int64)  # -0.0 equals 0.0
        ordered = bits ^ ((bits >> 63) & torch.iinfo(torch.int64).max)
        ordered = ordered.masked_fill(scores.isnan(), torch.iinfo(torch.int64).min)
        return ordered.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    everywhere = torch.arange(scores.shape[-1], device=scores.device)
    return _LOW - ((_ordered(scores) | _reversed(everywhere)).topk(k, dim=-1).values & _LOW)


def _ordered(scores: Tensor) -> Tensor:
    """float32 as int64 in the same order, NaN lowest, the low 32 bits free."""
    bits = torch.where(scores == 0, 0.0, scores).view(torch.int32)  # -0.0 equals 0.0
    ordered = bits ^ ((bits >> 31) & torch.iinfo(torch.int32).max)
    return ordered.masked_fill(scores.isnan(), torch.iinfo(torch.int32).min).to(torch.int64) << 32


def _reversed(position: Tensor) -> Tensor:
    return _LOW - position


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
