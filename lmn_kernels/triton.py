"""What the Triton kernels of several ops share: the type of a sum, and its conversion to the type that is stored."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .dtypes import accumulator


def acc_type(*dtypes: torch.dtype) -> tl.dtype:
    """Triton's name for the type that sums are kept in, :func:`~lmn_kernels.dtypes.accumulator`."""
    return tl.float64 if accumulator(*dtypes) == torch.float64 else tl.float32


@triton.jit
def narrow(sums, DTYPE: tl.constexpr):
    """``sums`` in the type DTYPE that is stored."""
    if tl.bfloat16 == DTYPE:  # Triton converts float64 to bfloat16 correctly only by way of float32
        sums = sums.to(tl.float32)
    return sums.to(DTYPE)
