"""CPU memory that a result gives back when it is freed, for the next result of its kind.

A training step makes a gradient of some hundred megabytes and drops it after the update. Fresh memory for it is mapped
and zeroed page by page at the first write: that costs more than the gradient itself, and several times as much on a
virtual machine whose host takes freed pages back. PyTorch caches memory on a GPU and not on a CPU, so the last few
buffers that became free are kept here, until :func:`empty_cache`. NumPy makes them, since it asks for huge pages.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LEAST_BYTES = 4 << 20  # the C library keeps smaller blocks by itself
MOST_SPARE = 4  # a buffer of more than this many times the wanted size is left for others
MOST_KEPT = 4  # as many memories of one model find theirs again

_kept: dict[int, npt.NDArray[np.uint8]] = {}  # only single operations, which no thread or finaliser can interrupt


def empty_cache() -> None:
    """Give the CPU memory that is kept for coming gradients back to the system, as ``torch.cuda.empty_cache`` does.

    The gradients of the values (``gather_aggregate``, ``memory_lookup``) are made in memory of earlier ones that are no
    longer in use. At most four buffers are kept, each of the size of a gradient in which every entry has a row.

    Example:
        >>> empty_cache()
    """
    _kept.clear()


def recycled_empty(rows: int, columns: int, dtype: torch.dtype, most_rows: int) -> Tensor:
    """``[rows, columns]`` on the CPU, undefined; later calls for up to ``most_rows`` can have the memory again."""
    wanted = max(rows, most_rows) * columns * dtype.itemsize
    if wanted < LEAST_BYTES:
        return torch.empty(rows, columns, dtype=dtype)
    buffer = _take(wanted)
    words: npt.NDArray[Any] = buffer[: rows * columns * dtype.itemsize].view(f"i{dtype.itemsize}")  # it has no bfloat16
    words = words.reshape(rows, columns)
    # The tensor holds this very array, not its base, until its storage is freed: then the buffer is nobody's.
    weakref.finalize(words, _keep, buffer).atexit = False
    return torch.from_numpy(words).view(dtype)


def _take(wanted: int) -> npt.NDArray[np.uint8]:
    fitting = {key: held.nbytes for key, held in list(_kept.items()) if wanted <= held.nbytes <= MOST_SPARE * wanted}
    for key in sorted(fitting, key=fitting.__getitem__):
        buffer = _kept.pop(key, None)  # None: another thread was quicker
        if buffer is not None:
            return buffer
    return np.empty(wanted, np.uint8)


def _keep(buffer: npt.NDArray[np.uint8]) -> None:
    _kept[id(buffer)] = buffer
    for oldest in list(_kept)[:-MOST_KEPT]:
        _kept.pop(oldest, None)
