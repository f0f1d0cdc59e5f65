"""Fixed codes of ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_codes(ids: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """Random signs ``[ids, width]`` in torch's default type."""
    return torch.randint(2, (ids, width), device=device).mul_(2).sub_(1).to(torch.get_default_dtype())


def id_offsets(item_sizes: Sequence[int], marginals: bool, device: torch.device | str | None = None) -> Tensor:
    """Where each feature's ids begin among the codes of all, int64; any item is one more feature."""
    sizes = (0, *item_sizes) if marginals else (0, *item_sizes[:-1])
    return torch.tensor(sizes, device=device).cumsum(0)
