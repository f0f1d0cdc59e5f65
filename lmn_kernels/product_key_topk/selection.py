"""The K best of each row, in an order that ties do not blur, for the torch backend.

``torch.topk`` breaks ties as it likes, so scores are turned into integers whose order is the contract's order: the
float's bits made monotone in the high half, the position in the low half. No two are equal, hence a selection of them
is exact and deterministic. For float64, whose bits fill the word, a stable sort does the same.

On the CPU only survivors are ranked so. Any bound that at least K scores of a row reach leaves a superset of its K
best, ties and all; the K-th best of the maxima of groups of ``GROUP`` is such a bound, and about 43 of 1,024 random
scores reach it. They are listed, packed and sorted. NumPy compares, finds the bound and sorts: its ways for rows are
vectorised where torch's are not. Rows where fewer than K or more than 4 * K scores reach the bound (NaN, heavy ties)
are ranked in full.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GROUP = 8
_LOW = (1 << 31) - 1


def best_first(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best of ``[..., N]`` and their positions: higher first, NaN last, equal ones by position."""
    if scores.device.type == "cpu" and scores.dtype == torch.float32 and scores.numel() > 0:
        rows = scores.reshape(-1, scores.shape[-1])
        position = _positions_of_survivors(rows, k).view(*scores.shape[:-1], k)
    else:
        position = _positions(scores, k)
    return scores.gather(-1, position), position


def _positions_of_survivors(rows: Tensor, k: int) -> Tensor:
    R, N = rows.shape
    scores = rows.numpy()
    entries = np.flatnonzero(scores >= _bound(rows, k))
    first_of_row = np.arange(R) * N
    counts = np.diff(entries.searchsorted(first_of_row), append=entries.shape[0])  # [R]
    fits = (counts >= k) & (counts <= 4 * k)
    if not fits.all():
        entries = entries[fits.repeat(counts)]
        counts[~fits] = 0
    width = max(k, counts.max())
    first_of_list = np.arange(R) * width - (counts.cumsum() - counts)
    lists = np.full(R * width, np.iinfo(np.int64).max)
    lists[np.arange(entries.shape[0]) + first_of_list.repeat(counts)] = _worst_first_bits(
        scores.reshape(-1)[entries]
    ) << 32 | entries - first_of_row.repeat(counts)
    lists = lists.reshape(R, width)
    lists.sort(axis=1)
    position = torch.from_numpy(lists[:, :k] & _LOW)
    if not fits.all():
        others = torch.from_numpy(np.flatnonzero(~fits))
        position[others] = _positions(rows[others], k)
    return position


def _bound(rows: Tensor, k: int) -> npt.NDArray[np.float32]:
    """``[R, 1]``: a score that at least ``k`` of a row without NaN reach."""
    R, N = rows.shape
    groups = N // GROUP
    fold = N % GROUP == 0 and groups >= 2 * k
    maxima: npt.NDArray[np.float32] = (rows.view(R, GROUP, groups).amax(1) if fold else rows).numpy()
    kth = maxima.shape[1] - k
    return np.partition(maxima, kth, axis=1)[:, kth, None]


def _worst_first_bits(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """float32 without NaN as integers in the opposite order."""
    bits = (scores + np.float32(0)).view(np.int32)  # -0.0 equals 0.0
    return (~bits ^ ((bits >> 31) & _LOW)).astype(np.int64)


def _positions(scores: Tensor, k: int) -> Tensor:
    if scores.dtype == torch.float64:
        bits = torch.where(scores == 0, 0.0, scores).view(torch.int64)  # -0.0 equals 0.0
        ordered = bits ^ ((bits >> 63) & torch.iinfo(torch.int64).max)
        ordered = ordered.masked_fill(scores.isnan(), torch.iinfo(torch.int64).min)
        return ordered.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    everywhere = torch.arange(scores.shape[-1], device=scores.device)
    return _LOW - ((_ordered(scores) | (_LOW - everywhere)).topk(k, dim=-1).values & _LOW)


def _ordered(scores: Tensor) -> Tensor:
    """float32 as int64 in the same order, NaN lowest, the low 32 bits free."""
    bits = torch.where(scores == 0, 0.0, scores).view(torch.int32)  # -0.0 equals 0.0
    ordered = bits ^ ((bits >> 31) & torch.iinfo(torch.int32).max)
    return ordered.masked_fill(scores.isnan(), torch.iinfo(torch.int32).min).to(torch.int64) << 32
