"""How similar an item is to the distinct other items of a window, by the cosine of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from lmn_model.modules.tensor_state import has_data

TOP = 10


def unit(rows: Tensor) -> Tensor:
    """Rows ``[..., D]`` of length 1; zeros stay zeros."""
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / length.clamp_min(torch.finfo(rows.dtype).tiny)


def window_similarity(row: Tensor, rows: Tensor, others: Tensor) -> Tensor:
    """Mean, maximum and mean of the ten largest cosines, ``[B, 3]``; zeros where there is no other item.

    Args:
        row: ``[B, D]``, of the items.
        rows: ``[B, T, D]``, of the items in the window, or ``[1, T, D]`` if all have the same.
        others: bool ``[B, T]``, of :func:`distinct_others`.
    """
    if rows.shape[1] == 0:
        return row.new_zeros(row.shape[0], 3)
    if rows.shape[0] == 1 and row.shape[0] > 1:
        with torch.autocast(row.device.type, enabled=False):  # it would narrow the product
            cosines = unit(row) @ unit(rows[0]).T
    else:
        cosines = (unit(rows) * unit(row).unsqueeze(1)).sum(-1)  # no matrix product, which autocast would narrow
    count = others.sum(1)
    mean = (cosines * others).sum(1) / count.clamp_min(1)
    best = cosines.masked_fill(~others, -torch.inf).topk(min(TOP, rows.shape[1]), dim=1).values
    best = torch.where(best.isfinite(), best, 0.0)
    return torch.stack((mean, best[:, 0], best.sum(1) / count.clamp(1, best.shape[1])), dim=1)


def distinct_others(item: Tensor, window: Tensor, mask: Tensor) -> Tensor:
    """Bool ``[B, T]``: real, not the item itself, and not the id of an earlier position.

    Args:
        item: ``[B]`` ids.
        window: ``[B, T]`` ids, or ``[1, T]`` if all are alike.
        mask: bool of the shape of ``window``, True where it is real.
    """
    ids = window.masked_fill(~mask, torch.iinfo(window.dtype).min)  # padding may have the id of an item
    ordered, places = ids.sort(dim=1, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.empty_like(first).scatter_(1, places, first) & mask & (window != item.unsqueeze(1))


def all_alike(*tensors: Tensor) -> bool:
    """Whether each tensor's rows ``[B, ...]`` are equal, for B > 1; looked up on a CPU alone, where nothing waits."""
    if torch.compiler.is_compiling() or any(each.device.type != "cpu" or not has_data(each) for each in tensors):
        return False
    return all(len(each) > 1 and torch.equal(each, each[:1].expand_as(each)) for each in tensors)


def check_window(name: str, rows: int, window: Tensor, mask: Tensor, ndim: int = 2) -> None:
    """Raise ValueError unless ``window`` is ``[B, T]``, or ``[B, T, F]`` for ``ndim`` 3, and ``mask`` is ``[B, T]``."""
    if window.ndim != ndim or window.shape[0] != rows or mask.shape != window.shape[:2]:
        shape = "[B = {}, T]" if ndim == 2 else "[B = {}, T, F]"
        raise ValueError(
            f"{name}: window must be {shape.format(rows)} with a mask [B, T], got {list(window.shape)} and "
            f"{list(mask.shape)}"
        )
