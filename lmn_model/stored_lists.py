"""The best keys of ids, found once by looking at every key, and stored until a key or an id's code changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """The ``k`` best of keys ``[N, D]`` for each of codes ``[V, D]``, in float32 or better, under autocast too.

    Args:
        codes: ``[V, D]``.
        keys: ``[N, D]``.
        k: K, 1 to N.
        metric: ``"cosine"``, ``"dot"`` or ``"l2"``, the negative squared distance.
        asleep: bool ``[N]``, keys that rank below all others; None if there is none.
    """
    exact = torch.promote_types(torch.promote_types(codes.dtype, keys.dtype), torch.float32)
    codes, keys = codes.to(exact), keys.to(exact)
    with torch.autocast("cpu" if codes.is_meta else codes.device.type, enabled=False):  # there is none of "meta"
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


class ListStore:
    """Keeps lists for as long as the tensors that they were made of do not change. A copy starts empty.

    A change is seen by a tensor's place and version, so not where its ``.data`` is written in place.
    """

    def __init__(self) -> None:
        self._of: tuple[Tensor, ...] = ()
        self._state: object = None
        self._lists: tuple[StoredLists, ...] = ()

    def __reduce__(self) -> tuple[type[ListStore], tuple[()]]:
        return ListStore, ()

    def get(self, of: Sequence[Tensor], k: int, make: Callable[[], Sequence[StoredLists]]) -> tuple[StoredLists, ...]:
        """The lists of ``k`` entries that ``make`` made of tensors, made anew if need be.

        Raises:
            RuntimeError: in ``torch.export`` there are none, or what they were made of has changed.
        """
        if torch.compiler.is_exporting():  # what stands for the tensors has no state
            if not self._lists or self._state != _state(self._of, k):
                raise RuntimeError(
                    "FactoredMemoryNetwork: call the network once before torch.export, to make its lists"
                )
        elif self._state != _state(of, k):
            self._of, self._state, self._lists = tuple(of), _state(of, k), tuple(make())
        return self._lists


def _state(of: Sequence[Tensor], k: int) -> object:
    return k, [(tensor.data_ptr(), None if tensor.is_inference() else tensor._version) for tensor in of]
