"""Sums and counts that keep the precision they need when a module changes its type."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def wide_dtype() -> torch.dtype:
    """Float32, or torch's default type if that is wider."""
    return torch.promote_types(torch.get_default_dtype(), torch.float32)


class WideSums(nn.Module):
    """A module whose own floats never become narrower than float32, as by ``half()``: sums would stop growing.

    Modules in it change their type as usual.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> WideSums:
        def wide(tensor: Tensor) -> Tensor:
            changed = fn(tensor)
            wanted = torch.promote_types(changed.dtype, torch.float32)
            narrow = changed.is_floating_point() and wanted != changed.dtype
            return tensor.to(changed.device, wanted) if narrow else changed

        if recurse:
            for module in self.children():
                module._apply(fn)
        super()._apply(wide, recurse=False)  # type: ignore[no-untyped-call]
        return self
