"""Errors for the derivatives that the ops do not have: forward-mode AD and the transforms of ``torch.func``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack
from torch.autograd import forward_ad

_REFUSED = {  # by the mode of differentiation
    "forward": "there is no forward-mode derivative (torch.autograd.forward_ad, torch.func.jvp, jacfwd); "
    "take gradients by backward() or torch.autograd.grad",
    "reverse": "torch.func.grad, vjp, jacrev and hessian are not supported; "
    "take gradients by backward() or torch.autograd.grad, through torch.func.functional_call if need be",
}


def check_transforms(op: str, *tensors: Tensor) -> None:
    """Raise where anything but autograd would differentiate the op.

    Below autograd an op drops the tangents of forward mode, so that the derivative would silently be 0.

    Raises:
        NotImplementedError: a tensor has a tangent, or ``torch.func`` takes its gradient.
    """
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        mode = _refused_mode(tensors)
    else:
        mode = "forward" if _has_tangent(tensors) else None
    if mode is not None:
        raise NotImplementedError(f"{op}: {_REFUSED[mode]}")


def _has_tangent(tensors: Sequence[Tensor]) -> bool:
    """Whether forward-mode AD differentiates by one of ``tensors``; level -1 means that it is off."""
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(each).tangent is not None for each in tensors)  # type: ignore[no-untyped-call]


def _refused_mode(tensors: Sequence[Tensor]) -> str | None:
    """``"forward"``, ``"reverse"`` or None: the derivative that an active transform of ``torch.func`` takes of an op.

    The stack of transforms is walked from the innermost one outwards, unwrapping its tensors. Behind the last one only
    forward-mode AD without ``torch.func`` remains.
    """
    functorch = torch._C._functorch
    transform = functorch.peek_interpreter_stack()
    is_vmap = transform is not None and transform.key() == functorch.TransformType.Vmap
    if not is_vmap and _has_tangent(tensors):  # unpack_dual has no rule for vmap
        return "forward"
    wrapped = [each for each in tensors if functorch.is_functorch_wrapped_tensor(each)]
    if torch.is_grad_enabled() and any(each.requires_grad for each in wrapped):
        return "reverse"
    if transform is None:
        return None
    level = transform.level()
    inside = [functorch.get_unwrapped(x) if functorch.maybe_get_level(x) == level else x for x in tensors]
    with temporarily_pop_interpreter_stack():
        return _refused_mode(inside)
