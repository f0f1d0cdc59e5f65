"""Tensors of constants that are made once and kept."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode


def kept_constant(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep up to 64 tensors that ``make`` gave for hashable arguments, the device among them.

    Only ordinary tensors are kept: also under ``torch.inference_mode`` one that autograd can save. Under a dispatch
    mode (fake tensors, tracing) or a ``torch.func`` transform, ``make`` may give a tensor without data: there it is
    called each time, and nothing is kept or taken.
    """

    @functools.lru_cache(maxsize=64)
    def ordinary(*arguments: object) -> Tensor:
        with torch.inference_mode(False):
            return make(*arguments)

    @functools.wraps(make)
    def kept(*arguments: object) -> Tensor:
        if _get_current_dispatch_mode() is not None or torch._C._functorch.peek_interpreter_stack() is not None:
            return make(*arguments)
        return ordinary(*arguments)

    return kept
