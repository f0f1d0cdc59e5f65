"""Conversion of hyperparameters: numbers of Python and of NumPy, and tensors of one element."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor


def as_number(value: object) -> float | None:
    """``value`` as a float: a number, or an array or tensor of one element; None for all else, booleans too.

    For a tensor on a GPU the host waits.
    """
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.dtype == torch.bool or value.is_complex():
            return None
        return float(value.item())
    if isinstance(value, np.ndarray):
        return float(value.item()) if value.size == 1 and value.dtype.kind in "iuf" else None
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None


def as_numbers(values: object) -> tuple[float | None, ...]:
    """:func:`as_number` of each of several values; empty if ``values`` is not iterable."""
    try:
        return tuple(map(as_number, values))  # type: ignore[call-overload]
    except TypeError:
        return ()


def as_integer(value: object) -> int | None:
    """``value`` as an int, if it is an integer of Python or of NumPy; None for all else, booleans too."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
