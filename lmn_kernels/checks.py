"""Argument checks that the public functions share; each message says what was expected and what came."""

from __future__ import annotations

from torch import Tensor

from .dtypes import FLOATS, INTEGERS, describe, names


def check_tensor(op: str, name: str, value: object, shape: str, integers: bool = False) -> Tensor:
    """``value`` as a tensor whose rank is that of ``shape``, such as ``"[M, D]"``, and whose type the op takes.

    Raises:
        TypeError: ``value`` is no tensor, or has another type.
        ValueError: it has another number of dimensions.
    """
    allowed = INTEGERS if integers else FLOATS
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor {shape}, got {type(value).__name__}")
    if value.dtype not in allowed:
        raise TypeError(f"{op}: {name} must be {names(allowed)} with shape {shape}, got {describe(value)}")
    if value.dim() != shape.count(",") + 1:
        raise ValueError(f"{op}: {name} must have shape {shape}, got {describe(value)}")
    return value


def check_same_device(op: str, **tensors: Tensor) -> None:
    """Raise ``ValueError`` unless all tensors are on one device."""
    (first, reference), *others = tensors.items()
    for name, tensor in others:
        if tensor.device != reference.device:
            raise ValueError(f"{op}: {name} must be on the device of {first}, {reference.device}, got {tensor.device}")


def check_choice(op: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{op}: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
