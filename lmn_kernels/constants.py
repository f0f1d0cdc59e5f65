"""A cache for tensors of constants."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode


def kept_constant(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Cache up to 64 tensors that ``make`` returned for hashable arguments, the device among them.

    Only ordinary tensors are cached: under ``torch.inference_mode`` too, one that autograd can save. Under a dispatch
    mode (fake tensors, tracing) or a ``torch.func`` transform, ``make`` may return a tensor without data: there it is
    called each time, and the cache is neither filled nor read.
    """

    @functools.lru_cache(maxsize=64)
    def cached(*arguments: object) -> Tensor:
        with torch.inference_mode(False):
            return make(*arguments)

    @functools.wraps(make)
    def kept(*arguments: object) -> Tensor:
        if _get_current_dispatch_mode() is not None or torch._C._functorch.peek_interpreter_stack() is not None:
            return make(*arguments)
        return cached(*arguments)

    return kept
