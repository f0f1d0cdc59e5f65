"""What the kernels of the weighted bag share: the shape of a tile and the type of a sum.

A lane moves 16 bytes of a row at a time. For Triton to make one load of them it must know that rows begin at multiples
of 16 bytes, so a row's stride is a constant of the kernel: like the width of a row it belongs to the table, not to the
batch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...dtypes import accumulator

LANES = 32  # of a warp; AMD's 64 lanes move 8 bytes each in the same tile


def columns_per_lane(*tensors: Tensor) -> int:
    """Elements of the widest type that 16 bytes hold."""
    return 16 // max(tensor.element_size() for tensor in tensors)


def acc_type(*dtypes: torch.dtype) -> tl.dtype:
    """The type that sums are kept in."""
    return tl.float64 if accumulator(*dtypes) == torch.float64 else tl.float32


@triton.jit
def narrow(sums, DTYPE: tl.constexpr):
    """``sums`` in another type."""
    if tl.bfloat16 == DTYPE:  # Triton has no sound way from float64 to it but through float32
        sums = sums.to(tl.float32)
    return sums.to(DTYPE)
