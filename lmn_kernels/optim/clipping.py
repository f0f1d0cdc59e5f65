"""Clipping by the joint norm of dense gradients and sparse rows."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..library import opaque
from .hyperparameters import as_number
from .rounding import NARROW_FLOATS
from .touched_rows import touched_rows


@opaque
@torch.no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float | Tensor,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients, dense and sparse, so that their joint norm is at most ``max_norm``.

    As ``torch.nn.utils.clip_grad_norm_``, which cannot take sparse rows. Rows of one slot are added up first: the
    norm of rows that are yet to be added up is not the norm of their sum. A sparse gradient is marked as coalesced
    afterwards. It cannot be captured in a CUDA graph. ``torch.compile`` breaks the graph here and runs it eagerly.

    Args:
        parameters: one or several; those without a gradient are skipped.
        max_norm: at least 0; a number or a tensor of one element.
        norm_type: p of the norm, ``inf`` for the largest entry.
        error_if_nonfinite: raise where the norm is NaN or infinite.
        foreach: as in torch.

    Returns:
        The joint norm before scaling, a scalar tensor.

    Raises:
        TypeError: ``max_norm`` is no number.
        ValueError: ``max_norm`` is below 0.
        RuntimeError: the norm is not finite and ``error_if_nonfinite`` is set; nothing has been scaled then.

    Example:
        >>> table = torch.nn.Embedding(4, 2, sparse=True)
        >>> (3 * table(torch.tensor([1, 1]))).sum().backward()  # the row's gradient is [6, 6]
        >>> round(clip_grad_norm_(table.parameters(), 1.0).item(), 3)
        8.485
    """
    limit = as_number(max_norm)
    if limit is None:
        raise TypeError(f"clip_grad_norm_: max_norm must be a number, got {max_norm!r}")
    if not limit >= 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be at least 0, got {max_norm}")
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    rows = {each: touched_rows(each.grad) for each in given if each.grad is not None and each.grad.is_sparse}
    parts = {each: _wide(rows[each].sums) if each in rows else each.grad for each in given if each.grad is not None}
    norm = torch.nn.utils.get_total_norm(parts.values(), norm_type, error_if_nonfinite, foreach)
    scale = torch.clamp(limit / (norm + 1e-6), max=1.0)
    for each, part in parts.items():
        if each not in rows:
            part.mul_(scale.to(part.device))
            continue
        scaled = (part * scale.to(part.device)).to(each.dtype)
        each.grad = torch.sparse_coo_tensor(
            rows[each].slots[None], scaled, each.shape, is_coalesced=True, check_invariants=False
        )
    return norm


def _wide(rows: Tensor) -> Tensor:
    """``rows``, in float32 if their type has too few digits for a norm."""
    return rows.float() if rows.dtype in NARROW_FLOATS else rows
