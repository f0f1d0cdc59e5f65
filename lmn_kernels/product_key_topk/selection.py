"""The K best of each row, ties in the contract's order too, for the torch backend.

``torch.topk`` breaks ties as it likes, so scores are turned into integers whose order is the contract's order: the
float's bits made monotone in the high half, the position in the low half. No two are equal, hence a selection of them
is exact and deterministic. For float64, whose bits fill the word, a stable sort does the same.

On the CPU only survivors are ranked so. Any bound that at least K scores of a row reach leaves a superset of its K
best, ties and all; the K-th best of the maxima of groups of ``GROUP`` is such a bound, and about 43 of 1,024 random
scores reach it. They are listed, packed and sorted. NumPy compares, finds the bound and sorts: its functions along rows
are vectorised where torch's are not. Rows where fewer than K or more than 4 * K scores reach the bound (NaN, heavy
ties) are ranked in full.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GROUP = 8
_LOW_31 = (1 << 31) - 1  # mask of the low 31 bits; positions are below it


def best_first(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best of ``[..., N]`` and their positions: higher first, NaN last, equal ones by position."""
    if scores.device.type == "cpu" and scores.dtype == torch.float32 and scores.numel() > 0:
        rows = scores.reshape(-1, scores.shape[-1])
        position = _positions_of_survivors(rows, k).view(*scores.shape[:-1], k)
    else:
        position = _positions(scores, k)
    return scores.gather(-1, position), position


def _positions_of_survivors(rows: Tensor, k: int) -> Tensor:
    """Positions ``[R, k]`` of the best of float32 ``rows [R, N]`` on the CPU: sort the scores that reach a bound."""
    R, N = rows.shape
    scores = rows.numpy()
    entries = np.flatnonzero(scores >= _bound(rows, k))  # of the survivors: row * N + column, ascending
    first_of_row = np.arange(R) * N
    counts = np.diff(entries.searchsorted(first_of_row), append=entries.shape[0])  # [R] survivors
    fits = (counts >= k) & (counts <= 4 * k)
    if not fits.all():
        entries = entries[fits.repeat(counts)]
        counts[~fits] = 0
    width = max(k, counts.max())
    lists = np.full(R * width, np.iinfo(np.int64).max)  # [R, width], padded with what sorts last
    shift = np.arange(R) * width - (counts.cumsum() - counts)  # from a survivor's number to its place in ``lists``
    places = np.arange(entries.shape[0]) + shift.repeat(counts)
    columns = entries - first_of_row.repeat(counts)
    lists[places] = _descending_bits(scores.reshape(-1)[entries]) << 32 | columns
    lists = lists.reshape(R, width)
    lists.sort(axis=1)  # ascending: the best score first, then the lowest column
    position = torch.from_numpy(lists[:, :k] & _LOW_31)
    if not fits.all():
        others = torch.from_numpy(np.flatnonzero(~fits))
        position[others] = _positions(rows[others], k)
    return position


def _bound(rows: Tensor, k: int) -> npt.NDArray[np.float32]:
    """``[R, 1]``: a score that at least ``k`` of a row without NaN reach.

    Group g of a row is its columns g, g + groups, g + 2 * groups and so on.
    """
    R, N = rows.shape
    groups = N // GROUP
    fold = N % GROUP == 0 and groups >= 2 * k
    maxima: npt.NDArray[np.float32] = (rows.view(R, GROUP, groups).amax(1) if fold else rows).numpy()
    kth = maxima.shape[1] - k
    return np.partition(maxima, kth, axis=1)[:, kth, None]


def _descending_bits(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """float32 without NaN as integers in the opposite order: the highest score gives the lowest."""
    bits = (scores + np.float32(0)).view(np.int32)  # -0.0 equals 0.0
    return (~bits ^ ((bits >> 31) & _LOW_31)).astype(np.int64)


def _positions(scores: Tensor, k: int) -> Tensor:
    """Positions ``[..., k]`` of the best of ``scores [..., N]``, by ranking them all."""
    if scores.dtype == torch.float64:
        bits = torch.where(scores == 0, 0.0, scores).view(torch.int64)  # -0.0 equals 0.0
        ordered = bits ^ ((bits >> 63) & torch.iinfo(torch.int64).max)
        ordered = ordered.masked_fill(scores.isnan(), torch.iinfo(torch.int64).min)
        return ordered.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    columns = torch.arange(scores.shape[-1], device=scores.device)
    return _LOW_31 - ((_ordered(scores) | (_LOW_31 - columns)).topk(k, dim=-1).values & _LOW_31)


def _ordered(scores: Tensor) -> Tensor:
    """float32 as int64 in the same order, NaN lowest, the low 32 bits free."""
    bits = torch.where(scores == 0, 0.0, scores).view(torch.int32)  # -0.0 equals 0.0
    ordered = bits ^ ((bits >> 31) & torch.iinfo(torch.int32).max)
    return ordered.masked_fill(scores.isnan(), torch.iinfo(torch.int32).min).to(torch.int64) << 32
