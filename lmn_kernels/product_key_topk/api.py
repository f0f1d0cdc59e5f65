"""``product_key_topk``: the router of a product-key memory, exact and with a sparse gradient.

Scoring, both selections and the pair step are two kernels; for cosine and l2, torch computes norms before them. Other
implementations write the two score matrices, two sorted top-ks and K x K pairs to memory. Ties have one defined order
on every backend (``torch.topk`` has none), so that equal scores give equal slots.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backend import check_backend, on_backend
from ..checks import check_choice, check_int, check_same_device, check_tensor
from ..dtypes import accumulator, describe
from ..exported import exported
from ..library import register, register_backward
from ..transforms import check_transforms
from .metric import METRICS
from .reference import product_key_topk_backward_reference, product_key_topk_reference

_OP = "product_key_topk"


@exported
class ProductKeyTopK(NamedTuple):
    """What :func:`product_key_topk` returns, best first.

    Attributes:
        scores: ``[B, H, K]`` float32, or float64 for float64 inputs; never NaN.
        slots: ``[B, H, K]`` int64 in [0, N * N), different within a row and head.
    """

    scores: Tensor
    slots: Tensor


def product_key_topk(
    queries: Tensor, keys: Tensor, k: int, *, metric: str = "dot", backend: str = "auto"
) -> ProductKeyTopK:
    """The K best of the N * N slots for each query, without scoring them all.

    ``score(i * N + j) = s_0[i] + s_1[j]``, where ``s_a[n]`` compares ``queries[b, h, a]`` with ``keys[h, a, n]``.

    Args:
        queries: ``[B, H, 2, C]``, float32, bfloat16, float16 or float64.
        keys: ``[H, 2, N, C]``, the same type.
        k: slots to choose for each row and head, 1 to N.
        metric: ``"dot"``; ``"cosine"``; or ``"l2"``, the negative squared distance.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.

    Returns:
        :class:`ProductKeyTopK`: scores and slots, best first. Gradients flow from the scores to queries and keys.

    Raises:
        TypeError: an argument is no tensor or has a type that is not listed above; ``k`` is no int.
        ValueError: a shape, type or device does not fit, ``k`` is out of range, ``metric`` or ``backend`` is unknown.
        RuntimeError: ``backend="triton"`` where Triton cannot run.

    Notes:
        Selection is exact and deterministic. On an axis a higher score comes first, then the lower sub-key; over
        pairs a higher sum, then the lower rank on axis 0, then the lower rank on axis 1. A NaN score ranks below
        -inf, and if it must be chosen all the same its score is given as -inf. -inf on one axis wins over +inf on the
        other.
        Scores accumulate in float32 (float64 for float64). The gradient is sparse: K of the N scores on an axis have
        one.
        There is no second derivative; forward-mode AD and gradients of ``torch.func`` raise ``NotImplementedError``.
        Infinite queries or keys give defined scores and slots, but NaN gradients, as in plain torch.
        ``"l2"`` is computed as ``2 q.k - |k|^2 - |q|^2``, at most 0: its error is some units in the last place of the
        squared norms, so vectors far from the origin should be centred first.
        ``queries`` and ``keys`` must share a type: under autocast, cast the queries to the keys'.
        Bytes moved: B * H * 2 * C elements of queries, B * H * K * 12 bytes of results and, written and read between
        the two kernels, about 2 * B * H * K * 16 bytes of lists; the keys stay in the cache.

    Source: Lample et al. 2019, arXiv 1907.05242, section 3.2; two-axis activation of LMN, arXiv 2502.05558.

    Example:
        >>> queries = torch.tensor([[[[1.0], [1.0]]]])                   # [B=1, H=1, 2, C=1]
        >>> keys = torch.tensor([[[[0.0], [2.0]], [[1.0], [5.0]]]])      # [H=1, 2, N=2, C=1]
        >>> product_key_topk(queries, keys, 2)
        ProductKeyTopK(scores=tensor([[[7., 5.]]]), slots=tensor([[[3, 1]]]))
    """
    check_backend(_OP, backend)
    k = check_router_arguments(_OP, queries, keys, k, metric)
    check_transforms(_OP, queries, keys)
    return ProductKeyTopK(*_forward(queries, keys, k, metric, backend))


def check_router_arguments(op: str, queries: Tensor, keys: Tensor, k: int, metric: str) -> int:
    """The checks that :func:`product_key_topk` and ``memory_lookup`` share; ``k`` as a plain int."""
    check_tensor(op, "queries", queries, "[B, H, 2, C]")
    check_tensor(op, "keys", keys, "[H, 2, N, C]")
    check_choice(op, "metric", metric, METRICS)
    if queries.shape[2] != 2:
        raise ValueError(f"{op}: queries must have shape [B, H, 2, C], got {describe(queries)}")
    if keys.shape[1] != 2 or keys.shape[0] != queries.shape[1] or keys.shape[3] != queries.shape[3]:
        expected = f"[{queries.shape[1]}, 2, N, {queries.shape[3]}]"
        raise ValueError(
            f"{op}: keys must have shape {expected} to fit queries {describe(queries)}, got {describe(keys)}"
        )
    if keys.dtype != queries.dtype:
        raise ValueError(f"{op}: keys must have the type of queries, {describe(queries)}, got {describe(keys)}")
    if queries.shape[1] == 0 or queries.shape[3] == 0:
        raise ValueError(f"{op}: queries must have H >= 1 and C >= 1, got {describe(queries)}")
    k = check_int(op, "k", k)
    if not 1 <= k <= keys.shape[2]:
        raise ValueError(f"{op}: k must lie in [1, N] with N = {keys.shape[2]}, got {k}")
    check_same_device(op, queries=queries, keys=keys)
    return k


def router_gradient(
    grad: Tensor,
    queries: Tensor,
    keys: Tensor,
    slots: Tensor,
    weights: Tensor | None,
    metric: str,
    activation: str,
    needs: tuple[bool, bool],
    backend: str,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of queries and keys, None where not needed, through the dispatched op.

    ``grad`` is that of the weights that ``activation`` made, if ``weights`` are given, and else of the scores.
    """
    if not any(needs):
        return None, None
    gradients = _backward_op(grad, queries, keys, slots, weights, metric, activation, list(needs), backend)
    return gradients[0] if needs[0] else None, gradients[1] if needs[1] else None


def _forward_implementation(queries: Tensor, keys: Tensor, k: int, metric: str, backend: str) -> tuple[Tensor, Tensor]:
    run = on_backend(_OP, backend, queries.device, product_key_topk_reference, "launch_product_key_topk")
    return run(queries, keys, k, metric)


def _forward_fake(queries: Tensor, keys: Tensor, k: int, metric: str, backend: str) -> tuple[Tensor, Tensor]:
    B, H, _, _ = queries.shape
    scores = queries.new_empty(B, H, k, dtype=accumulator(queries.dtype))
    return scores, queries.new_empty(B, H, k, dtype=torch.int64)


def _backward_implementation(
    grad: Tensor,
    queries: Tensor,
    keys: Tensor,
    slots: Tensor,
    weights: Tensor | None,
    metric: str,
    activation: str,
    needs: list[bool],
    backend: str,
) -> tuple[Tensor, Tensor]:
    run = on_backend(
        _OP, backend, queries.device, product_key_topk_backward_reference, "launch_product_key_topk_backward"
    )
    grad_queries, grad_keys = run(grad, queries, keys, slots, weights, metric, activation, (needs[0], needs[1]))
    # An op returns tensors only, contiguous ones as its fake kernel does, and no two that share memory.
    return (
        queries.new_empty(0) if grad_queries is None else grad_queries.contiguous(),
        queries.new_empty(0) if grad_keys is None else grad_keys.contiguous(),
    )


def _backward_fake(
    grad: Tensor,
    queries: Tensor,
    keys: Tensor,
    slots: Tensor,
    weights: Tensor | None,
    metric: str,
    activation: str,
    needs: list[bool],
    backend: str,
) -> tuple[Tensor, Tensor]:
    return (
        queries.new_empty(queries.shape) if needs[0] else queries.new_empty(0),
        keys.new_empty(keys.shape) if needs[1] else queries.new_empty(0),
    )


_forward = register(
    "product_key_topk(Tensor queries, Tensor keys, SymInt k, str metric, str backend) -> (Tensor, Tensor)",
    _forward_implementation,
    _forward_fake,
    capturable=False,  # the first call for a K copies the staircase from the host
)
_backward_op = register(
    "product_key_topk_backward(Tensor grad, Tensor queries, Tensor keys, Tensor slots, Tensor? weights, str metric, "
    "str activation, bool[] needs, str backend) -> (Tensor, Tensor)",
    _backward_implementation,
    _backward_fake,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    queries, keys, _, ctx.metric, ctx.backend = inputs
    _, slots = output
    ctx.mark_non_differentiable(slots)
    ctx.set_materialize_grads(False)  # zeros for the slots would be filled
    ctx.save_for_backward(queries, keys, slots)


def _backward(ctx: Any, grad_scores: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad_scores is None:  # the scores were not used
        return None, None, None, None, None
    queries, keys, slots = ctx.saved_tensors
    needs = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
    gradients = router_gradient(grad_scores, queries, keys, slots, None, ctx.metric, "none", needs, ctx.backend)
    return *gradients, None, None, None


register_backward(_OP, _setup, _backward)
