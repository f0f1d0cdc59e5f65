"""Zeros for large tables; on the CPU in huge pages where the system has them.

A step reads rows at random places of a table of gigabytes. In pages of 4 KiB nearly every read misses the TLB, which
costs more than the row itself, most of all on a virtual machine. Linux gives pages of 2 MiB on request (``madvise``).
NumPy requests them for every large array; torch does not.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .checks import check_int

_HUGE = 2 << 20


def huge_zeros(*shape: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
    """``torch.zeros``, in huge pages on the CPU where the system gives them.

    Memory is mapped where it is first written, so a table of which few rows are written takes little.

    Args:
        shape: sizes.
        dtype: of the zeros; None for torch's default.
        device: of the zeros; None for torch's default.

    Returns:
        A tensor like any other.

    Raises:
        TypeError: a size is no integer.
        ValueError, MemoryError: the sizes are too large for an integer or for the CPU's memory.

    Example:
        >>> huge_zeros(2, 3)
        tensor([[0., 0., 0.],
                [0., 0., 0.]])
    """
    dtype = dtype or torch.get_default_dtype()
    shape = tuple(check_int("huge_zeros", "shape", size) for size in shape)  # a product of NumPy's may wrap around
    device = torch.get_default_device() if device is None else torch.device(device)
    if device.type != "cpu" or math.prod(shape) * dtype.itemsize < _HUGE:
        return torch.zeros(shape, dtype=dtype, device=device)
    words = np.zeros(shape, f"i{dtype.itemsize}")  # NumPy has no bfloat16
    return torch.from_numpy(words).view(dtype)
