"""The best keys of ids, found once by looking at every key and stored."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_SCORES = 1 << 24
"""Scores held at once."""


class StoredLists(NamedTuple):
    """The best keys of V codes, best first: scores ``[V, K]`` and the keys' places ``[V, K]`` int64."""

    scores: Tensor
    keys: Tensor


@torch.no_grad()
def best_keys(codes: Tensor, keys: Tensor, k: int, metric: str, *, asleep: Tensor | None = None) -> StoredLists:
    """The ``k`` best of keys ``[N, D]`` for each of codes ``[V, D]``.

    Args:
        codes: ``[V, D]``.
        keys: ``[N, D]``.
        k: K, 1 to N.
        metric: ``"cosine"``, ``"dot"`` or ``"l2"``, the negative squared distance.
        asleep: bool ``[N]``, keys that rank below all others; None if there is none.
    """
    if metric == "cosine":
        codes, keys = F.normalize(codes, dim=-1), F.normalize(keys, dim=-1)
    scores, places = [], []
    for some in codes.split(max(1, _SCORES // len(keys))):
        score = some @ keys.T  # [V, N]
        if metric == "l2":
            squares = some.square().sum(-1, keepdim=True), keys.square().sum(-1)
            score = (2 * score - squares[1] - squares[0]).clamp_max(0)  # as in lmn_kernels
        if asleep is not None:
            score = score.masked_fill(asleep, -torch.inf)
        best = score.topk(k)
        scores.append(best.values)
        places.append(best.indices)
    return StoredLists(torch.cat(scores), torch.cat(places))
