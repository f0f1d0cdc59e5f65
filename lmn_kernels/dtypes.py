"""Floating types the ops take and the type each one is accumulated in."""

from __future__ import annotations

import torch

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INTEGERS = (torch.int32, torch.int64)


def accumulator(*dtypes: torch.dtype) -> torch.dtype:
    """The type that sums are kept in: float64 if any input is float64, else float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def describe(tensor: torch.Tensor) -> str:
    """``float32 [4, 8]``: what an error message says about a tensor."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def names(dtypes: tuple[torch.dtype, ...]) -> str:
    """``float32, bfloat16 or float16``: a list of types for an error message."""
    texts = [str(dtype).removeprefix("torch.") for dtype in dtypes]
    return ", ".join(texts[:-1]) + f" or {texts[-1]}"
