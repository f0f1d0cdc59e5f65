"""How many columns of a value row a lane moves at a time.

It moves 16 bytes. Triton makes one load of them only if it can see that rows begin at multiples of 16 bytes, so a row's
stride is a constant of the kernel: like the width of a row it belongs to the table, not to the batch.
"""

from __future__ import annotations

from torch import Tensor

LANES = 32  # of a warp; AMD's 64 lanes move 8 bytes each in the same tile


def columns_per_lane(*tensors: Tensor) -> int:
    """Elements that 16 bytes hold, of the widest type among ``tensors``."""
    return 16 // max(tensor.element_size() for tensor in tensors)
