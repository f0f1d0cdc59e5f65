"""Fixed codes of ids, and where pairs of ids lead by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lmn_kernels.exported import exported


@exported
class Cells(NamedTuple):
    """Where pairs lead: slots ``[R, F, K]`` int64 and their weights ``[R, F, K]``."""

    slots: Tensor
    weights: Tensor


def draw_codes(ids: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """Random signs ``[ids, width]`` in torch's default type."""
    return torch.randint(2, (ids, width), device=device).mul_(2).sub_(1).to(torch.get_default_dtype())


def draw_keys(keys: Tensor) -> Tensor:
    """Draw whole keys ``[M, D]`` in place, as sub-keys are drawn."""
    return keys.normal_().mul_(keys.shape[1] ** -0.5)


def id_offsets(item_sizes: Sequence[int], marginals: bool, device: torch.device | str | None = None) -> Tensor:
    """Where each feature's ids begin, int64; any item is one more feature."""
    sizes = (0, *item_sizes) if marginals else (0, *item_sizes[:-1])
    return torch.tensor(sizes, device=device).cumsum(0)
