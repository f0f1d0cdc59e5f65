"""Argument checks that the public functions share; each message says what was expected and what came."""

from __future__ import annotations

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


def check_flag(op: str, name: str, value: object) -> None:
    """Raise ``TypeError`` unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{op}: {name} must be a bool, got {value!r}")


def check_choice(op: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{op}: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
