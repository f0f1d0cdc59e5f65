"""The ``torch.library`` namespace that the ops are registered in.

Each op is functional and has one implementation for every device, which runs on the Triton or the torch backend
(``backend.py``), a fake kernel for ``torch.compile`` and ``torch.export``, and, if it is differentiable, an autograd
formula made of other ops of this library. Ops are never nested. Dynamo does not trace implementations and formulas,
wherever they are called from.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch._subclasses.fake_tensor import FakeTensor

LIBRARY: Any = torch.library.Library("lmn_kernels", "FRAGMENT")  # type: ignore[no-untyped-call]


def register(
    schema: str, implementation: Callable[..., Any], fake: Callable[..., Any], *, capturable: bool = True
) -> Any:
    """Define an op from its schema and return it, ready to call.

    An op that is not ``capturable`` waits for the GPU or fills a cache in its first call; the compiler keeps it out of
    the CUDA graphs that it makes.
    """
    name = schema.partition("(")[0]
    tags = [torch.Tag.pt2_compliant_tag]
    if not capturable:
        tags.append(torch.Tag.cudagraph_unsafe)
    LIBRARY.define(schema, tags=tuple(tags))
    LIBRARY.impl(name, opaque(_without_autocast(implementation)), "CompositeExplicitAutograd")
    torch.library.register_fake(f"lmn_kernels::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.lmn_kernels, name).default


def opaque(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep Dynamo out of ``function``, as ``torch.library.custom_op`` does.

    A compiled program calls an op eagerly after a graph break and in the backward pass. Dynamo would then compile what
    the op calls, frame by frame. ``torch.compiler.disable`` does the same, but imports the compiler at once.
    """
    hidden: Callable[..., Any] = _disable_dynamo(function)
    return hidden


def _without_autocast(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """Keep autocast out of an op: its caller chose the types, and the op chooses those of its sums."""

    @functools.wraps(implementation)
    def run(first: Tensor, *arguments: Any) -> Any:  # every op takes a tensor first
        device = first.device.type
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return implementation(first, *arguments)
        with torch.autocast(device, enabled=False):
            return implementation(first, *arguments)

    return run


def data_dependent_size(like: Tensor, *bounds: int) -> Any:
    """A size that depends on data, for a fake kernel: symbolic where a compiler traces ``like``, else the lowest bound.

    ``new_dynamic_size`` of ``torch.library.get_ctx()`` raises unless ``fullgraph=True``, so Dynamo breaks the graph.
    Here only gradients have such a size, and Dynamo never sees them.
    """
    shape_env = like.fake_mode.shape_env if isinstance(like, FakeTensor) else None
    if shape_env is None:  # a meta tensor, or a fake one of fixed sizes
        return min(bounds)
    size = shape_env.create_unbacked_symint()
    torch._check(size >= 0)  # type: ignore[no-untyped-call]
    return size


def register_backward(name: str, setup: Callable[..., None], backward: Callable[..., Any]) -> None:
    """Give the op ``name`` its autograd formula, which can be differentiated once.

    Under ``create_graph=True`` a gradient raises when it is differentiated by what it was computed from. Without that,
    autograd would trace a formula of ops that have no formula themselves, and silently give a wrong second derivative.
    """

    def backward_once(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            gradients = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return tuple(gradients)
        sources = (*grads, *ctx.saved_tensors)
        return tuple(None if gradient is None else _no_second(gradient, name, *sources) for gradient in gradients)

    torch.library.register_autograd(
        f"lmn_kernels::{name}", opaque(backward_once), setup_context=opaque(setup), lib=LIBRARY
    )


class _NoSecondDerivative(torch.autograd.Function):
    """A gradient that raises when it is differentiated by the tensors it was computed from."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, name: str, *computed_from: Tensor | None) -> Tensor:
        ctx.name = name
        return gradient.detach()

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(f"{ctx.name}: there is no second derivative; its gradients cannot be differentiated")


_no_second: Any = _NoSecondDerivative.apply
