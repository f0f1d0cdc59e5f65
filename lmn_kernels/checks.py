"""Argument checks that the public functions share; each message names what was expected and what was passed."""

from __future__ import annotations

import operator
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from .dtypes import FLOATS, INTEGERS, describe, names


def check_tensor(op: str, name: str, value: object, shape: str, integers: bool = False) -> None:
    """Check that ``value`` is a tensor with the rank of ``shape``, such as ``"[M, D]"``, and a type that the op takes.

    Raises:
        TypeError: ``value`` is no tensor, is sparse, or has another type.
        ValueError: it has another number of dimensions.
    """
    allowed = INTEGERS if integers else FLOATS
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor {shape}, got {type(value).__name__}")
    if value.dtype not in allowed:
        raise TypeError(f"{op}: {name} must be {names(allowed)} with shape {shape}, got {describe(value)}")
    if value.layout != torch.strided:
        raise TypeError(f"{op}: {name} must be a dense tensor {shape}, got layout {value.layout}")
    if value.dim() != shape.count(",") + 1:
        raise ValueError(f"{op}: {name} must have shape {shape}, got {describe(value)}")


def check_same_device(op: str, **tensors: Tensor) -> None:
    """Raise ``ValueError`` unless all tensors are on one device."""
    (first, reference), *others = tensors.items()
    for name, tensor in others:
        if tensor.device != reference.device:
            raise ValueError(f"{op}: {name} must be on the device of {first}, {reference.device}, got {tensor.device}")


def check_flag(op: str, name: str, value: object) -> bool:
    """``value`` as a plain bool; raise ``TypeError`` unless it is a bool of Python or NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{op}: {name} must be a bool, got {value!r}")
    return bool(value)


def check_int(op: str, name: str, value: object, low: int | None = None) -> int:
    """``value`` as a plain int, so that state and compiled graphs do not depend on the integer type of the caller.

    Accepts what ``operator.index`` accepts, such as NumPy's integers, but no bool; a symbolic int stays one.

    Raises:
        TypeError: ``value`` is no integer.
        ValueError: it is below ``low``.
    """
    if type(value) is not int and not isinstance(value, torch.SymInt):
        if isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool):
            raise TypeError(f"{op}: {name} must be an int, got {type(value).__name__}")
        try:
            value = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(f"{op}: {name} must be an int, got {type(value).__name__}") from None
    if low is not None and value < low:
        raise ValueError(f"{op}: {name} must be at least {low}, got {value}")
    return value  # type: ignore[return-value]


def check_number(op: str, name: str, value: object, low: float | None = None) -> float:
    """``value`` as a plain float: a real number of Python or NumPy, or an array or tensor of one; no bool.

    Raises:
        TypeError: ``value`` is no real number.
        ValueError: it is not at least ``low``.
    """
    number = value.item() if isinstance(value, (np.ndarray, np.generic, Tensor)) and value.ndim == 0 else value
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    number = float(number)
    if low is not None and not number >= low:
        raise ValueError(f"{op}: {name} must be at least {low:g}, got {number}")
    return number


def check_choice(op: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{op}: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
