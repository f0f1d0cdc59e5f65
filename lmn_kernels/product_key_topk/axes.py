"""The two steps of the selection one by one: the best sub-keys of one axis, and the best pairs of two such lists.

Where a half of a query comes from few different things, such as the items of a catalogue, its list can be made once and
stored; what is left of a look-up is to combine two stored lists. Scores and the order of ties are those of
:func:`lmn_kernels.product_key_topk`, whose slots the two steps give. Both run in plain torch and have no gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_choice, check_int, check_same_device, check_tensor
from ..dtypes import accumulator, describe
from ..exported import exported
from ..library import register
from ..transforms import check_transforms
from .api import ProductKeyTopK
from .metric import METRICS, metric_term
from .reference import CHUNK_BYTES, best_pairs, score_sub_keys
from .selection import best_first


@exported
class AxisTopK(NamedTuple):
    """The best sub-keys of an axis, best first.

    Attributes:
        scores: ``[..., K]`` float32 or float64; NaN where no other sub-key is left.
        sub_keys: ``[..., K]`` int64, different in each list.
    """

    scores: Tensor
    sub_keys: Tensor


def axis_topk(queries: Tensor, keys: Tensor, k: int, *, metric: str = "dot") -> AxisTopK:
    """The ``k`` best of N keys for each query half: a higher score first, then the lower index, NaN last.

    Args:
        queries: ``[B, C]``, float32, bfloat16, float16 or float64.
        keys: ``[N, C]``, the same type. A key of NaN is chosen after all others.
        k: entries of a list, 1 to N.
        metric: ``"dot"``; ``"cosine"``; or ``"l2"``, the negative squared distance.

    Returns:
        :class:`AxisTopK` with ``[B, K]`` scores, accumulated in float32 (float64 for float64), under autocast too.

    Raises:
        TypeError: an argument is no tensor or has a type that is not listed above; ``k`` is no int.
        ValueError: a shape, type or device does not fit, ``k`` is out of range, or ``metric`` is unknown.

    Example:
        >>> axis_topk(torch.tensor([[1.0]]), torch.tensor([[0.0], [2.0], [2.0]]), 2)
        AxisTopK(scores=tensor([[2., 2.]]), sub_keys=tensor([[1, 2]]))
    """
    check_tensor("axis_topk", "queries", queries, "[B, C]")
    check_tensor("axis_topk", "keys", keys, "[N, C]")
    check_choice("axis_topk", "metric", metric, METRICS)
    if keys.shape[1] != queries.shape[1] or keys.dtype != queries.dtype or queries.shape[1] == 0:
        raise ValueError(f"axis_topk: keys must have the C >= 1 columns and the type of queries {describe(queries)}, "
                         f"got {describe(keys)}")  # fmt: skip
    k = check_int("axis_topk", "k", k)
    if not 1 <= k <= keys.shape[0]:
        raise ValueError(f"axis_topk: k must lie in [1, N] with N = {keys.shape[0]}, got {k}")
    check_same_device("axis_topk", queries=queries, keys=keys)
    check_transforms("axis_topk", queries, keys)
    return AxisTopK(*_axis_topk(queries.detach(), keys.detach(), k, metric))


def combine_axes(first: AxisTopK, second: AxisTopK, sub_keys: int) -> ProductKeyTopK:
    """The K best pairs of two lists of K: a higher sum first, then the lower rank on axis 0, then on axis 1.

    Args:
        first: list of axis 0, scores and sub-keys ``[..., K]``.
        second: list of axis 1, of the same shape and types.
        sub_keys: N, of which a slot's number i * N + j is made.

    Returns:
        :class:`lmn_kernels.ProductKeyTopK` with scores and slots ``[..., K]``; a score is never NaN.

    Raises:
        TypeError: scores are not float32 or float64, sub-keys are not int64, or ``sub_keys`` is no int.
        ValueError: shapes, types or devices differ.

    Example:
        >>> lists = AxisTopK(torch.tensor([[2.0, 1.0]]), torch.tensor([[3, 0]]))
        >>> combine_axes(lists, lists, 4)
        ProductKeyTopK(scores=tensor([[4., 3.]]), slots=tensor([[15, 12]]))
    """
    tensors = (*first, *second)
    names = ("first.scores", "first.sub_keys", "second.scores", "second.sub_keys")
    for name, tensor in zip(names, tensors, strict=True):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"combine_axes: {name} must be a tensor, got {type(tensor).__name__}")
    for scores, indices in (first, second):
        if scores.dtype not in (torch.float32, torch.float64) or indices.dtype != torch.int64:
            raise TypeError(f"combine_axes: lists must hold float32 or float64 scores and int64 sub-keys, "
                            f"got {describe(scores)} and {describe(indices)}")  # fmt: skip
    shape = first.scores.shape
    if not shape or any(each.shape != shape for each in tensors) or first.scores.dtype != second.scores.dtype:
        got = ", ".join(map(describe, tensors))
        raise ValueError(f"combine_axes: lists must have one shape [..., K] and one type of scores, got {got}")
    sub_keys = check_int("combine_axes", "sub_keys", sub_keys, low=1)
    check_same_device("combine_axes", **dict(zip(names, tensors, strict=True)))
    check_transforms("combine_axes", *tensors)
    return ProductKeyTopK(*_combine_axes(*(each.detach() for each in tensors), sub_keys))


def _axis_topk_implementation(queries: Tensor, keys: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    """The first half of ``product_key_topk_reference``, for one head and axis."""
    (B, _), N = queries.shape, keys.shape[0]
    dtype = accumulator(queries.dtype)
    scores = queries.new_empty(B, k, dtype=dtype)
    sub_keys = queries.new_empty(B, k, dtype=torch.int64)
    wide_keys = keys.to(dtype).unsqueeze(0)  # [1, N, C]
    key_term = metric_term(keys.unsqueeze(0), metric, dtype)
    chunk = max(1, min(B, CHUNK_BYTES // (N * dtype.itemsize)))
    dots = queries.new_empty(chunk * N, dtype=dtype)
    for start in range(0, B, chunk):
        rows = slice(start, start + chunk)
        axis_scores = score_sub_keys(queries[rows].to(dtype).unsqueeze(0), wide_keys, key_term, metric, dots)
        best, chosen = best_first(axis_scores, k)  # [1, b, K]
        scores[rows], sub_keys[rows] = best[0], chosen[0]
    return scores, sub_keys


def _axis_topk_fake(queries: Tensor, keys: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    scores = queries.new_empty(queries.shape[0], k, dtype=accumulator(queries.dtype))
    return scores, queries.new_empty(queries.shape[0], k, dtype=torch.int64)


def _combine_axes_implementation(
    first_scores: Tensor, first_sub_keys: Tensor, second_scores: Tensor, second_sub_keys: Tensor, N: int
) -> tuple[Tensor, Tensor]:
    shape = first_scores.shape
    scores = torch.stack((first_scores, second_scores)).view(1, 2, -1, shape[-1])  # [H = 1, 2, b, K]
    sub_keys = torch.stack((first_sub_keys, second_sub_keys)).view(1, 2, -1, shape[-1])
    sums, slots = best_pairs(scores, sub_keys, N)
    return sums.view(shape), slots.view(shape)


def _combine_axes_fake(
    first_scores: Tensor, first_sub_keys: Tensor, second_scores: Tensor, second_sub_keys: Tensor, N: int
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(first_scores, memory_format=torch.contiguous_format),
        torch.empty_like(first_sub_keys, memory_format=torch.contiguous_format),
    )


_axis_topk = register(
    "axis_topk(Tensor queries, Tensor keys, SymInt k, str metric) -> (Tensor, Tensor)",
    _axis_topk_implementation,
    _axis_topk_fake,
    capturable=False,
)
_combine_axes = register(
    "combine_axes(Tensor first_scores, Tensor first, Tensor second_scores, Tensor second, SymInt sub_keys) "
    "-> (Tensor, Tensor)",
    _combine_axes_implementation,
    _combine_axes_fake,
    capturable=False,
)
