"""The ``torch.library`` namespace that the ops are registered in.

Each op is functional and has one implementation for every device, which takes the Triton or the torch backend (see
``backend.py``), a fake kernel for ``torch.compile`` and ``torch.export``, and, if it is differentiable, an autograd
formula made of other ops of this library. Ops are never nested.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

LIBRARY: Any = torch.library.Library("lmn_kernels", "FRAGMENT")  # type: ignore[no-untyped-call]


def register(schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Define an op from its schema and return it, ready to call."""
    name = schema.partition("(")[0]
    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"lmn_kernels::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.lmn_kernels, name).default


def register_backward(name: str, setup: Callable[..., None], backward: Callable[..., Any]) -> None:
    """Give the op ``name`` its autograd formula."""
    torch.library.register_autograd(f"lmn_kernels::{name}", backward, setup_context=setup, lib=LIBRARY)
