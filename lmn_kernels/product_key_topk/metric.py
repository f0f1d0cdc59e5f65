"""Score of a query half against a sub-key, and its gradient, for each metric.

Every metric is a dot product and at most one number for each query half and one for each sub-key::

    dot       q . k
    cosine    ((q . k) * query_term) * key_term      terms: 1 / max(norm, EPS)
    l2        min(0, (2 * (q . k) - key_term) - query_term)  terms: squared norms

Both backends take the terms from here and combine them in this order, so that sums that are exact (small integers, for
instance) give bitwise equal scores, and ties, on both.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

METRICS = ("dot", "cosine", "l2")
EPS = 1e-12

# The arguments of both are those of sparse_score_backward.
Bag = Callable[[Tensor, Tensor, Tensor, torch.dtype], Tensor]
Scatter = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def metric_term(vectors: Tensor, metric: str, dtype: torch.dtype) -> Tensor | None:
    """The number a metric needs for each vector ``[..., C]``, in ``dtype``; None for ``"dot"``."""
    if metric == "dot":
        return None
    squared_norm = vectors.to(dtype).square().sum(-1)
    return squared_norm if metric == "l2" else squared_norm.sqrt().clamp_min(EPS).reciprocal()


def combine_terms(dots: Tensor, query_term: Tensor | None, key_term: Tensor | None, metric: str) -> Tensor:
    """Scores from dot products ``[..., N]``, query terms ``[..., 1]`` and key terms ``[..., N]``."""
    if query_term is None or key_term is None:
        return dots
    if metric == "cosine":
        return dots * query_term * key_term
    return (2 * dots - key_term - query_term).clamp_max(0)  # rounding must not make a distance negative


def axis_entries(grad_scores: Tensor, slots: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """Rows of the key table, of all heads and axes, that each query half chose, and the gradient of each one's score.

    A chosen score is s_0[i] + s_1[j], so one gradient goes to both axes.

    Args:
        grad_scores: ``[B, H, K]``.
        slots: ``[B, H, K]`` integers i * N + j.
        N: sub-keys on an axis.

    Returns:
        Rows in [0, H * 2 * N) and gradients, both ``[B * H * 2, K]``.
    """
    B, H, K = slots.shape
    sub_keys = torch.stack((torch.div(slots, N, rounding_mode="floor"), slots.remainder(N)), dim=2)  # [B, H, 2, K]
    first_row = torch.arange(H * 2, device=slots.device, dtype=slots.dtype).view(1, H, 2, 1) * N
    gradients = grad_scores.unsqueeze(2).expand(B, H, 2, K).reshape(B * H * 2, K)
    # Where B * H is 1, reshape returned the expanded tensor itself, whose two rows share memory.
    return (sub_keys + first_row).view(B * H * 2, K), gradients.contiguous()


def sparse_score_backward(
    ids: Tensor,
    gradients: Tensor,
    queries: Tensor,
    keys: Tensor,
    metric: str,
    needs: tuple[bool, bool],
    bag: Bag,
    scatter: Scatter,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of queries and keys from those of the K chosen scores of each query half; the others have none.

    For the dot product a query half gets a weighted sum of K sub-keys (a bag over the key table) and a sub-key gets a
    weighted sum of the query halves that chose it (the transpose of that bag); the other metrics add a correction of
    the size of their inputs. No ``[B, N]`` matrix of score gradients exists.

    The gradient of ``"l2"`` passes through the clamp at 0 of :func:`combine_terms`: where rounding makes the clamp act,
    query and sub-key are nearly equal and the gradient is nearly 0.

    Args:
        ids, gradients: of :func:`axis_entries`, ``[X, K]`` for X = B * H * 2 query halves.
        queries: ``[B, H, 2, C]``.
        keys: ``[H, 2, N, C]``.
        metric: one of :data:`METRICS`.
        needs: whether the gradient of the queries and of the keys is wanted.
        bag: ``bag(table [T, C], ids [X, K], weights [X, K], dtype) -> [X, C]`` in that type, summed in the
            accumulator's.
        scatter: ``scatter(ids [X, K], weights [X, K], source [X, C], T) -> [T, C]``, in the accumulator's type.

    Returns:
        Gradients in the types of ``queries`` and ``keys``; None where not wanted.
    """
    q = queries.reshape(-1, queries.shape[-1])  # [X, C]
    k = keys.reshape(-1, keys.shape[-1])  # [T, C], T = H * 2 * N: the key table
    wide = gradients.dtype
    grad_queries = grad_keys = None
    if metric == "cosine":
        q_scale, k_scale = _unit_scale(q, wide), _unit_scale(k, wide)
        q_unit, k_unit = q.to(wide) * q_scale, k.to(wide) * k_scale
        if needs[0]:
            grad_queries = _through_norm(bag(k_unit, ids, gradients, wide), q_unit, q_scale)
        if needs[1]:
            grad_keys = _through_norm(scatter(ids, gradients, q_unit, k.shape[0]), k_unit, k_scale)
    elif metric == "l2":
        if needs[0]:
            grad_queries = 2 * (bag(k, ids, gradients, wide) - q * gradients.sum(-1, keepdim=True))
        if needs[1]:
            q_one = torch.cat((q, q.new_ones(q.shape[0], 1)), dim=-1)  # [X, C + 1]: the last column sums the gradients
            sums = scatter(ids, gradients, q_one, k.shape[0])
            grad_keys = 2 * (sums[:, :-1] - k * sums[:, -1:])  # [T, C]
    else:
        if needs[0]:
            grad_queries = bag(k, ids, gradients, queries.dtype)
        if needs[1]:
            grad_keys = scatter(ids, gradients, q, k.shape[0])
    return (
        None if grad_queries is None else grad_queries.to(queries.dtype).view(queries.shape),
        None if grad_keys is None else grad_keys.to(keys.dtype).view(keys.shape),
    )


def _unit_scale(vectors: Tensor, dtype: torch.dtype) -> Tensor:
    """``[X, 1]``: what makes each of ``vectors [X, C]`` a unit vector, ``1 / max(norm, EPS)``."""
    norm: Tensor = torch.linalg.vector_norm(vectors.to(dtype), dim=-1, keepdim=True)
    return norm.clamp_min(EPS).reciprocal()


def _through_norm(grad_unit: Tensor, unit: Tensor, scale: Tensor) -> Tensor:
    """Gradient of x given that of ``unit``, which is x / max(|x|, EPS), and ``scale``, which is 1 / max(|x|, EPS)."""
    along = (grad_unit * unit).sum(-1, keepdim=True)
    along = torch.where(scale < 1 / EPS, along, torch.zeros_like(along))  # below EPS the divisor is a constant
    return scale * (grad_unit - unit * along)
