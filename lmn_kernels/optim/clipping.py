"""Clipping by the joint norm of dense gradients and sparse rows."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients, dense and sparse, so that their joint norm is at most ``max_norm``.

    As ``torch.nn.utils.clip_grad_norm_``, which cannot take sparse rows. A sparse gradient is coalesced first: the
    norm of rows that are yet to be added up is not the norm of their sum.

    Args:
        parameters: one or several; those without a gradient have no part.
        max_norm: at least 0.
        norm_type: p of the norm, ``inf`` for the largest entry.
        error_if_nonfinite: raise where the norm is NaN or infinite.
        foreach: as in torch.

    Returns:
        The joint norm before scaling, a scalar tensor.

    Raises:
        ValueError: ``max_norm`` is below 0.
        RuntimeError: the norm is not finite, and ``error_if_nonfinite`` asked for it; nothing has been scaled then.

    Example:
        >>> table = torch.nn.Embedding(4, 2, sparse=True)
        >>> (3 * table(torch.tensor([1, 1]))).sum().backward()  # the row's gradient is [6, 6]
        >>> round(clip_grad_norm_(table.parameters(), 1.0).item(), 3)
        8.485
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be at least 0, got {max_norm}")
    parts = []
    for parameter in [parameters] if isinstance(parameters, Tensor) else parameters:
        gradient = parameter.grad
        if gradient is not None and gradient.is_sparse:
            gradient = parameter.grad = gradient.coalesce()
            gradient = gradient.values()
        if gradient is not None:
            parts.append(gradient)
    norm = torch.nn.utils.get_total_norm(parts, norm_type, error_if_nonfinite, foreach)
    scale = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    for part in parts:
        part.mul_(scale.to(part.device))
    return norm
