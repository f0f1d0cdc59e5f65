"""``memory_lookup``: a whole read of a product-key memory in three kernel launches.

It is ``product_key_topk``, an activation and ``gather_aggregate``. The activation is part of the router's last kernel,
and no scores are returned: the backward pass needs only the weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..activation import ACTIVATIONS
from ..backend import check_backend, on_backend
from ..checks import check_choice, check_flag, check_same_device, check_tensor
from ..data_parallel import check_outside_ddp
from ..dtypes import accumulator, describe
from ..exported import exported
from ..gather_aggregate.api import bag_gradients
from ..library import register, register_backward
from ..product_key_topk.api import check_router_arguments, router_gradient
from ..transforms import check_transforms
from .reference import memory_lookup_reference

_OP = "memory_lookup"


@exported
class MemoryLookup(NamedTuple):
    """What :func:`memory_lookup` returns.

    Attributes:
        output: ``[B, D]`` in the type of the values; the heads are summed.
        slots: ``[B, H, K]`` int64 in [0, M), best first.
        weights: ``[B, H, K]`` float32, or float64 for float64 queries.
    """

    output: Tensor
    slots: Tensor
    weights: Tensor


def memory_lookup(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    k: int,
    *,
    metric: str = "dot",
    activation: str = "softmax",
    sparse_grad: bool = False,
    backend: str = "auto",
) -> MemoryLookup:
    """Read a product-key memory: choose K slots for each query and head, weigh them, sum their values.

    ``output[b] = sum_h sum_k weights[b, h, k] * values[slots[b, h, k]]`` with ``weights = activation(scores)`` and
    scores and slots as :func:`lmn_kernels.product_key_topk` gives them.

    Args:
        queries: ``[B, H, 2, C]``, float32, bfloat16, float16 or float64.
        keys: ``[H, 2, N, C]``, the same type.
        values: ``[M, D]`` with M = N * N, any of the float types.
        k: slots to read for each row and head, 1 to N.
        metric: ``"dot"``, ``"cosine"`` or ``"l2"``.
        activation: ``"softmax"`` over the K chosen scores, ``"sigmoid"`` or ``"relu"`` of each.
        sparse_grad: give ``values`` a coalesced sparse gradient, one row for each touched slot; see
            :func:`lmn_kernels.gather_aggregate` for what a captured CUDA graph gets.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.

    Returns:
        :class:`MemoryLookup`. Gradients flow from the output and from the weights to queries, keys and values.

    Raises:
        TypeError: an argument is no tensor or has a type that is not listed above; ``k`` is no int.
        ValueError: a shape, type or device does not fit, ``k`` is out of range, or a choice is unknown.
        RuntimeError: ``backend="triton"`` where Triton cannot run, or ``sparse_grad`` in the forward pass of a
            ``DistributedDataParallel`` that would exchange it as dense.

    Notes:
        Order of ties, NaN and infinities as in ``product_key_topk``; softmax gives equal scores equal shares, infinite
        ones too, so a weight is never NaN. There is no second derivative; forward-mode AD and gradients of
        ``torch.func`` raise ``NotImplementedError``.

    Source: Lample et al. 2019, arXiv 1907.05242, equations 1-3; the memory read of LMN, arXiv 2502.05558. Sigmoid and
    relu are this library's options.

    Example:
        >>> queries, keys = torch.ones(1, 1, 2, 1), torch.tensor([[[[0.0], [2.0]], [[1.0], [5.0]]]])
        >>> values = torch.eye(4)
        >>> read = memory_lookup(queries, keys, values, 2)
        >>> read.slots, read.output
        (tensor([[[3, 1]]]), tensor([[0.0000, 0.1192, 0.0000, 0.8808]]))
    """
    check_backend(_OP, backend)
    k = check_router_arguments(_OP, queries, keys, k, metric)
    check_tensor(_OP, "values", values, "[M, D]")
    check_choice(_OP, "activation", activation, ACTIVATIONS)
    N = keys.shape[2]
    if values.shape[0] != N * N:
        raise ValueError(
            f"{_OP}: values must have M = N * N = {N * N} rows for N = {N} sub-keys, got {describe(values)}"
        )
    check_same_device(_OP, queries=queries, values=values)
    sparse_grad = check_flag(_OP, "sparse_grad", sparse_grad)
    check_transforms(_OP, queries, keys, values)
    if sparse_grad:
        check_outside_ddp(_OP, values)
    return MemoryLookup(*_forward(queries, keys, values, k, metric, activation, sparse_grad, backend))


def _forward_implementation(
    queries: Tensor, keys: Tensor, values: Tensor, k: int, metric: str, activation: str, sparse_grad: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    # sparse_grad is an input for the backward pass alone, which reads it in _setup.
    run = on_backend(_OP, backend, queries.device, memory_lookup_reference, "launch_memory_lookup")
    return run(queries, keys, values, k, metric, activation)


def _forward_fake(
    queries: Tensor, keys: Tensor, values: Tensor, k: int, metric: str, activation: str, sparse_grad: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    B, H, _, _ = queries.shape
    return (
        values.new_empty(B, values.shape[1]),
        queries.new_empty(B, H, k, dtype=torch.int64),
        queries.new_empty(B, H, k, dtype=accumulator(queries.dtype)),
    )


_forward = register(
    "memory_lookup(Tensor queries, Tensor keys, Tensor values, SymInt k, str metric, str activation, bool sparse_grad, "
    "str backend) -> (Tensor, Tensor, Tensor)",
    _forward_implementation,
    _forward_fake,
    capturable=False,  # the first call for a K copies the staircase from the host
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    queries, keys, values, _, ctx.metric, ctx.activation, ctx.sparse_grad, ctx.backend = inputs
    _, slots, weights = output
    ctx.mark_non_differentiable(slots)
    ctx.set_materialize_grads(False)  # zeros for weights that are not used would be filled, and added
    ctx.like_output = (values.shape[1], values.dtype)
    ctx.values_like = (values.shape[0], values.dtype) if ctx.needs_input_grad[2] else None
    router_needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
    ctx.save_for_backward(queries, keys, values if router_needs_grad else None, slots, weights)


def _backward(ctx: Any, grad: Tensor | None, _: None, grad_weights: Tensor | None) -> tuple[Tensor | None, ...]:
    """``grad`` and ``grad_weights`` are those of the output and of the weights that the caller received."""
    queries, keys, values, slots, weights = ctx.saved_tensors
    if grad is None:  # the output was not used
        width, dtype = ctx.like_output
        grad = queries.new_zeros(queries.shape[0], width, dtype=dtype)
    needs = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
    grad_values, grad_weights_of_output = bag_gradients(
        grad,
        values,
        slots.flatten(1),  # [B, L], L = H * K
        weights.flatten(1),
        ctx.values_like,
        weights.dtype if any(needs) else None,
        ctx.sparse_grad,
        ctx.backend,
    )
    grad_queries = grad_keys = None
    if grad_weights_of_output is not None:
        total = grad_weights_of_output.view_as(weights)
        if grad_weights is not None:
            total = total + grad_weights
        grad_queries, grad_keys = router_gradient(
            total, queries, keys, slots, weights, ctx.metric, ctx.activation, needs, ctx.backend
        )
    return grad_queries, grad_keys, grad_values, None, None, None, None, None


register_backward(_OP, _setup, _backward)
