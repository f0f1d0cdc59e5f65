"""CPU memory that a result gives back when it is freed, for the next result of its kind.

A training step makes a gradient of some hundred megabytes and drops it after the update. Fresh memory for it is mapped
and zeroed page by page at the first write: that costs more than the gradient itself, and several times as much on a
virtual machine whose host takes freed pages back. PyTorch caches memory on a GPU and not on a CPU, so one buffer, that
of the last result freed, is kept here. NumPy makes it, since NumPy asks the system for huge pages.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LEAST_BYTES = 4 << 20  # the C library keeps smaller blocks by itself
MOST_SPARE = 4  # a kept buffer of more than this many times the wanted size is let go

_kept: deque[npt.NDArray[np.uint8]] = deque(maxlen=1)  # its methods are atomic: results are freed in any thread


def recycled_empty(rows: int, columns: int, dtype: torch.dtype, most_rows: int) -> Tensor:
    """``[rows, columns]`` on the CPU, undefined; later calls for up to ``most_rows`` can have the memory again."""
    wanted = most_rows * columns * dtype.itemsize
    if wanted < LEAST_BYTES:
        return torch.empty(rows, columns, dtype=dtype)
    try:
        buffer = _kept.pop()
    except IndexError:
        buffer = np.empty(0, np.uint8)
    if not wanted <= buffer.nbytes <= MOST_SPARE * wanted:
        buffer = np.empty(wanted, np.uint8)
    words: npt.NDArray[Any] = buffer[: rows * columns * dtype.itemsize].view(f"i{dtype.itemsize}")  # it has no bfloat16
    words = words.reshape(rows, columns)
    # The tensor holds this very array, not its base, until its storage is freed: then the buffer is nobody's.
    weakref.finalize(words, _kept.append, buffer).atexit = False
    return torch.from_numpy(words).view(dtype)
