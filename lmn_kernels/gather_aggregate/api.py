"""``gather_aggregate``: the read-out of a memory, a weighted bag with gradients to values and weights.

Only the functions of this folder read the values and make their gradient, in ``memory_lookup`` too, so that a table may
live elsewhere (sharded, on the host, quantised) without changing the rest. The op is measured against
``torch.nn.functional.embedding_bag``, which has no weights' gradient in bfloat16, no backward pass that can be captured
and no sparse gradient under weights that need one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backend import check_backend, on_backend
from ..checks import check_flag, check_same_device, check_tensor
from ..data_parallel import check_outside_ddp
from ..library import data_dependent_size, register, register_backward
from ..transforms import check_transforms
from .reference import (
    gather_aggregate_reference,
    touched_rows_reference,
    values_backward_reference,
    weights_backward_reference,
)

_OP = "gather_aggregate"


def gather_aggregate(
    values: Tensor, slots: Tensor, weights: Tensor, *, sparse_grad: bool = False, backend: str = "auto"
) -> Tensor:
    """Weighted sum of the value rows that each row of slots names.

    ``output[b] = sum_l weights[b, l] * values[slots[b, l]]``

    Args:
        values: ``[M, D]``, float32, bfloat16, float16 or float64.
        slots: ``[B, L]``, int32 or int64, each in [0, M). May repeat, within a row too.
        weights: ``[B, L]``, any of the float types; it may differ from that of ``values``.
        sparse_grad: give ``values`` a coalesced sparse gradient, one row for each touched slot in ascending order, so
            that a step costs what it touches. The default is dense, as in torch.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.

    Returns:
        ``[B, D]`` in the type of ``values``; sums are kept in float32, or float64 if either input is float64.

    Raises:
        TypeError: an argument is no tensor or has a type that is not listed above.
        ValueError: a shape or device does not fit, or ``backend`` is unknown.
        IndexError: on the torch backend, a slot lies outside [0, M). The Triton backend does not wait for the GPU to
            check: there such a slot reads nothing and makes its row of the output NaN; the backward pass of
            ``sparse_grad``, which does wait, raises.
        RuntimeError: ``backend="triton"`` where Triton cannot run, or ``sparse_grad`` in the forward pass of a
            ``DistributedDataParallel`` that would exchange it as dense.

    Notes:
        Deterministic: each output row and each gradient row is summed in one fixed order, forward and backward, with or
        without ``torch.use_deterministic_algorithms``. Atomic additions would move more bytes: see the head of
        ``triton/sorted_backward.py``.
        Gradients flow to ``values`` and ``weights``, each computed only if it is needed, both in one pass on Triton if
        that of the values is dense. There is no second derivative; forward-mode AD and gradients of ``torch.func``
        raise ``NotImplementedError``.
        CUDA graphs: on Triton every step can be captured. ``sparse_grad`` reads the number of touched slots on the
        host, which waits for the GPU; while a graph is being captured it gives instead a gradient that is not
        coalesced and has B * L rows, of which those past the touched slots repeat one of them with zeros: an equal sum.
        There a slot outside [0, M) has no gradient. The torch backend waits in every pass.
        On the CPU a sparse gradient takes the memory of an earlier one that is no longer in use; :func:`empty_cache`
        frees what is kept for that.
        Bytes moved, forward: B * L * D of values, B * L slots and weights, B * D of output.

    Source: the value read-out of Lample et al. 2019, arXiv 1907.05242, section 3.1; the memory read of LMN, arXiv
    2502.05558.

    Example:
        >>> values = torch.arange(8.0).view(4, 2)
        >>> slots = torch.tensor([[0, 3], [1, 1]])
        >>> weights = torch.tensor([[1.0, 0.5], [1.0, 1.0]])
        >>> gather_aggregate(values, slots, weights)
        tensor([[3.0000, 4.5000],
                [4.0000, 6.0000]])
    """
    check_backend(_OP, backend)
    check_tensor(_OP, "values", values, "[M, D]")
    check_tensor(_OP, "slots", slots, "[B, L]", integers=True)
    check_tensor(_OP, "weights", weights, "[B, L]")
    if slots.shape != weights.shape:
        raise ValueError(f"{_OP}: weights must have the shape of slots, {list(slots.shape)}, got {list(weights.shape)}")
    check_same_device(_OP, values=values, slots=slots, weights=weights)
    sparse_grad = check_flag(_OP, "sparse_grad", sparse_grad)
    check_transforms(_OP, values, weights)
    if sparse_grad:
        check_outside_ddp(_OP, values)
    return _forward(values, slots, weights, sparse_grad, backend)  # type: ignore[no-any-return]


def bag_gradients(
    grad: Tensor,
    values: Tensor | None,
    slots: Tensor,
    weights: Tensor | None,
    values_like: tuple[int, torch.dtype] | None,
    weights_dtype: torch.dtype | None,
    sparse: bool,
    backend: str,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the values ``[M, D]`` and of the weights ``[B, L]``, each None where not needed.

    Args:
        grad: ``[B, D]``, of the output.
        values: ``[M, D]``, needed for the gradient of the weights.
        slots: ``[B, L]``.
        weights: ``[B, L]``, needed for the gradient of the values.
        values_like: M and the type of the values, if their gradient is needed.
        weights_dtype: type of the weights, if their gradient is needed.
        sparse: give the values' gradient as coalesced sparse rows; see :func:`gather_aggregate` for captured graphs.
    """
    if values_like is None or weights is None:
        if weights_dtype is None:
            return None, None
        return None, _weights_backward(grad, values, slots, weights_dtype, backend)
    M, dtype = values_like
    table = None if weights_dtype is None else values  # with a table the op gives the gradient of the weights too
    if not sparse:
        grad_values, grad_weights = _values_backward(grad, table, slots, weights, M, dtype, backend)
    else:
        padded = _is_capturing(grad.device)
        rows, sums, grad_weights = _touched_rows(grad, table, slots, weights, M, dtype, padded, backend)
        grad_values = torch.sparse_coo_tensor(
            rows.unsqueeze(0), sums, (M, grad.shape[1]), is_coalesced=not padded, check_invariants=False
        )
    return grad_values, None if table is None else grad_weights


def _is_capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured, so that nothing can be read on the host."""
    if device.type != "cuda" or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    return torch.cuda.is_current_stream_capturing()


def _forward_implementation(values: Tensor, slots: Tensor, weights: Tensor, sparse_grad: bool, backend: str) -> Tensor:
    # sparse_grad is an input for the backward pass alone, which reads it in _setup.
    run = on_backend(_OP, backend, values.device, gather_aggregate_reference, "launch_gather_aggregate")
    return run(values, slots, weights)


def _forward_fake(values: Tensor, slots: Tensor, weights: Tensor, sparse_grad: bool, backend: str) -> Tensor:
    return values.new_empty(slots.shape[0], values.shape[1])


def _weights_backward_implementation(
    grad: Tensor, values: Tensor, slots: Tensor, dtype: torch.dtype, backend: str
) -> Tensor:
    run = on_backend(_OP, backend, values.device, weights_backward_reference, "launch_weights_backward")
    return run(grad, values, slots, dtype)


def _weights_backward_fake(grad: Tensor, values: Tensor, slots: Tensor, dtype: torch.dtype, backend: str) -> Tensor:
    return grad.new_empty(slots.shape, dtype=dtype)


def _values_backward_implementation(
    grad: Tensor,
    values: Tensor | None,
    slots: Tensor,
    weights: Tensor,
    M: int,
    dtype: torch.dtype,
    backend: str,
) -> tuple[Tensor, Tensor]:
    run = on_backend(_OP, backend, grad.device, values_backward_reference, "launch_values_backward")
    grad_values, grad_weights = run(grad, slots, weights, M, dtype, values)
    return grad_values, weights.new_empty(0) if grad_weights is None else grad_weights


def _values_backward_fake(
    grad: Tensor,
    values: Tensor | None,
    slots: Tensor,
    weights: Tensor,
    M: int,
    dtype: torch.dtype,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return grad.new_empty(M, grad.shape[1], dtype=dtype), _weights_gradient_fake(weights, values)


def _touched_rows_implementation(
    grad: Tensor,
    values: Tensor | None,
    slots: Tensor,
    weights: Tensor,
    M: int,
    dtype: torch.dtype,
    padded: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    run = on_backend(_OP, backend, grad.device, touched_rows_reference, "launch_touched_rows")
    rows, sums, grad_weights = run(grad, slots, weights, M, dtype, values, padded)
    return rows, sums, weights.new_empty(0) if grad_weights is None else grad_weights


def _touched_rows_fake(
    grad: Tensor,
    values: Tensor | None,
    slots: Tensor,
    weights: Tensor,
    M: int,
    dtype: torch.dtype,
    padded: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    touched = slots.numel() if padded else data_dependent_size(slots, slots.numel(), M)
    return (
        slots.new_empty(touched, dtype=torch.int64),
        grad.new_empty(touched, grad.shape[1], dtype=dtype),
        _weights_gradient_fake(weights, values),
    )


def _weights_gradient_fake(weights: Tensor, values: Tensor | None) -> Tensor:
    """An op returns tensors only: an empty one stands for no gradient."""
    return weights.new_empty(0 if values is None else weights.shape)


_forward = register(
    "gather_aggregate(Tensor values, Tensor slots, Tensor weights, bool sparse_grad, str backend) -> Tensor",
    _forward_implementation,
    _forward_fake,
)
_weights_backward = register(
    "gather_aggregate_weights_backward(Tensor grad, Tensor values, Tensor slots, ScalarType dtype, str backend) "
    "-> Tensor",
    _weights_backward_implementation,
    _weights_backward_fake,
)
_values_backward = register(
    "gather_aggregate_values_backward(Tensor grad, Tensor? values, Tensor slots, Tensor weights, SymInt M, "
    "ScalarType dtype, str backend) -> (Tensor, Tensor)",
    _values_backward_implementation,
    _values_backward_fake,
)
_touched_rows = register(
    "gather_aggregate_touched_rows(Tensor grad, Tensor? values, Tensor slots, Tensor weights, SymInt M, "
    "ScalarType dtype, bool padded, str backend) -> (Tensor, Tensor, Tensor)",
    _touched_rows_implementation,
    _touched_rows_fake,
    capturable=False,  # it reads the number of touched slots on the host
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    values, slots, weights, ctx.sparse_grad, ctx.backend = inputs
    ctx.values_like = (values.shape[0], values.dtype) if ctx.needs_input_grad[0] else None
    ctx.weights_dtype = weights.dtype if ctx.needs_input_grad[2] else None
    ctx.save_for_backward(
        values if ctx.needs_input_grad[2] else None, slots, weights if ctx.needs_input_grad[0] else None
    )


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    values, slots, weights = ctx.saved_tensors
    grad_values, grad_weights = bag_gradients(
        grad, values, slots, weights, ctx.values_like, ctx.weights_dtype, ctx.sparse_grad, ctx.backend
    )
    return grad_values, None, grad_weights, None, None


register_backward(_OP, _setup, _backward)
