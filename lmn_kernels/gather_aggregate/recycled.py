"""A cache of CPU memory: a freed gradient of the values leaves its memory to a later one.

A training step allocates a gradient of some hundred megabytes and drops it after the update. Fresh memory for it is
mapped and zeroed page by page at the first write. That costs more than computing the gradient, and several times as
much on a virtual machine whose host reclaims freed pages. PyTorch caches memory on a GPU and not on a CPU, so this
module keeps the last few buffers that became free, until :func:`empty_cache`. NumPy allocates them, because it requests
huge pages.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MIN_BYTES = 4 << 20  # the C library keeps smaller blocks by itself
MAX_SPARE = 4  # a buffer of more than this many times the wanted size is not taken
MAX_KEPT = 4  # buffers, so that a model of up to four memories reuses all of theirs at every step

_kept: dict[int, npt.NDArray[np.uint8]] = {}
"""Free buffers by their id, oldest first. Finalisers change it, in any thread and at any time, so it is used through
single operations of a dict alone, which nothing can interrupt."""


def empty_cache() -> None:
    """Free the CPU memory that is kept for later gradients, as ``torch.cuda.empty_cache`` does on a GPU.

    Gradients of the values (``gather_aggregate``, ``memory_lookup``) reuse the memory of earlier ones that are no
    longer in use. At most four buffers are kept, each of the size of a gradient in which every entry has a row.

    Example:
        >>> empty_cache()
    """
    _kept.clear()


def recycled_empty(rows: int, columns: int, dtype: torch.dtype, max_rows: int) -> Tensor:
    """``[rows, columns]`` on the CPU, uninitialised; later calls for up to ``max_rows`` rows can reuse its memory."""
    wanted = max(rows, max_rows) * columns * dtype.itemsize
    if wanted < MIN_BYTES:
        return torch.empty(rows, columns, dtype=dtype)
    buffer = _take(wanted)
    words: npt.NDArray[Any] = buffer[: rows * columns * dtype.itemsize].view(f"i{dtype.itemsize}")  # it has no bfloat16
    words = words.reshape(rows, columns)
    # The tensor holds this very array, not its base, until its storage is freed: then the buffer is free.
    weakref.finalize(words, _keep, buffer).atexit = False
    return torch.from_numpy(words).view(dtype)


def _take(wanted: int) -> npt.NDArray[np.uint8]:
    """The smallest free buffer of ``wanted`` bytes or more that is not far too large, or else a new one."""
    fitting = {key: held.nbytes for key, held in list(_kept.items()) if wanted <= held.nbytes <= MAX_SPARE * wanted}
    for key in sorted(fitting, key=fitting.__getitem__):
        buffer = _kept.pop(key, None)  # None: another thread was quicker
        if buffer is not None:
            return buffer
    return np.empty(wanted, np.uint8)


def _keep(buffer: npt.NDArray[np.uint8]) -> None:
    """Keep a buffer that became free, and no more than ``MAX_KEPT``."""
    _kept[id(buffer)] = buffer
    for oldest in list(_kept)[:-MAX_KEPT]:
        _kept.pop(oldest, None)
