"""Product-key selection in plain torch: the CPU path, and what the Triton kernels are checked against.

Rows are taken in chunks, so that the scores of a chunk stay in the cache and no ``[B, N]`` matrix is held. How the best
of a row are found is in ``selection.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..activation import activation_backward
from ..dtypes import accumulator
from ..gather_aggregate.reference import gather_aggregate_reference, scatter_rows_reference
from .metric import axis_entries, combine_terms, metric_term, sparse_score_backward
from .selection import best_first
from .staircase import staircase

CHUNK_BYTES = 8 << 20  # of scores


def product_key_topk_reference(queries: Tensor, keys: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    """Scores and slots ``[B, H, K]``, best first; see :func:`lmn_kernels.product_key_topk`."""
    B, H, _, C = queries.shape
    N = keys.shape[2]
    dtype = accumulator(queries.dtype)
    scores = queries.new_empty(B, H, k, dtype=dtype)
    slots = queries.new_empty(B, H, k, dtype=torch.int64)
    wide_keys = keys.to(dtype).reshape(H * 2, N, C)
    key_term = metric_term(keys.reshape(H * 2, N, C), metric, dtype)
    chunk = max(1, min(B, CHUNK_BYTES // (H * 2 * N * dtype.itemsize)))
    dots = queries.new_empty(H * 2 * chunk * N, dtype=dtype)  # one buffer for all chunks: fresh memory costs more
    for start in range(0, B, chunk):
        rows = slice(start, start + chunk)
        wide_queries = queries[rows].to(dtype).permute(1, 2, 0, 3).flatten(0, 1)  # [H * 2, b, C]
        axis_scores = score_sub_keys(wide_queries, wide_keys, key_term, metric, dots)
        best, sub_keys = best_first(axis_scores, k)  # [H * 2, b, K]
        sums, pairs = best_pairs(best.view(H, 2, -1, k), sub_keys.view(H, 2, -1, k), N)  # [H, b, K]
        scores[rows], slots[rows] = sums.transpose(0, 1), pairs.transpose(0, 1)
    return scores, slots


def score_sub_keys(queries: Tensor, keys: Tensor, key_term: Tensor | None, metric: str, buffer: Tensor) -> Tensor:
    """Scores ``[A, b, N]`` of query halves ``[A, b, C]`` against every sub-key ``[A, N, C]`` of A heads and axes.

    The dot products lie in ``buffer``, and so does the result for ``"dot"``: it is valid until the next call.
    """
    A, b, _ = queries.shape
    N = keys.shape[1]
    dots = torch.bmm(queries, keys.mT, out=buffer[: A * b * N].view(A, b, N))
    query_term = metric_term(queries, metric, queries.dtype)
    if query_term is None or key_term is None:
        return dots
    return combine_terms(dots, query_term.unsqueeze(-1), key_term.unsqueeze(1), metric)


def best_pairs(scores: Tensor, sub_keys: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """The K best sums ``[H, b, K]`` of two axes ``[H, 2, b, K]``, best first on each, and their slots i * N + j."""
    ranks = staircase(scores.shape[-1], scores.device).long()  # [2, P]
    first, second = scores[:, 0].index_select(-1, ranks[0]), scores[:, 1].index_select(-1, ranks[1])  # [H, b, P]
    sums, chosen = best_first(add_scores(first, second), scores.shape[-1])  # [H, b, K]: which of the P pairs
    i = sub_keys[:, 0].gather(-1, ranks[0].take(chosen))
    j = sub_keys[:, 1].gather(-1, ranks[1].take(chosen))
    return sums.masked_fill(sums.isnan(), -torch.inf), i * N + j


def add_scores(first: Tensor, second: Tensor) -> Tensor:
    """``first + second``, where -inf wins over +inf and only NaN gives NaN, so that better ranks give better sums."""
    sums = first + second
    undefined = sums.isnan()
    if sums.is_cuda or undefined.any():  # a look at the values would wait for the GPU
        sums.masked_fill_(undefined & ~first.isnan() & ~second.isnan(), -torch.inf)
    return sums


def product_key_topk_backward_reference(
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
    grad_scores = grad if weights is None else activation_backward(grad, weights, activation)
    entries = axis_entries(grad_scores, slots, keys.shape[2])
    return sparse_score_backward(*entries, queries, keys, metric, needs, bag=_bag, scatter=scatter_rows_reference)


def _bag(table: Tensor, ids: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
    """``bag`` of ``metric.sparse_score_backward``; a table as wide as the weights goes to ``embedding_bag``."""
    return gather_aggregate_reference(table.to(weights.dtype), ids, weights).to(dtype)
