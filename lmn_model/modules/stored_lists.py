"""The best keys of ids, found once by looking at every key, and stored until a key or an id's code changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lmn_kernels.exported import exported
from lmn_model.modules.tensor_state import has_data, state_of

_SCORES = 1 << 24
"""Scores held at once."""


@exported
class StoredLists(NamedTuple):
    """The best keys of V codes, best first: scores ``[V, K]`` and the keys' places ``[V, K]`` int64."""

    scores: Tensor
    keys: Tensor


@torch.no_grad()
def best_keys(codes: Tensor, keys: Tensor, k: int, metric: str, *, inactive: Tensor | None = None) -> StoredLists:
    """The ``k`` best of keys ``[N, D]`` for each of codes ``[V, D]``, in float32 or better, under autocast too.

    Args:
        codes: ``[V, D]``.
        keys: ``[N, D]``.
        k: K, 1 to N.
        metric: ``"cosine"``, ``"dot"`` or ``"l2"``, the negative squared distance.
        inactive: bool ``[N]``, keys that rank below all others; None if there is none.
    """
    exact = torch.promote_types(torch.promote_types(codes.dtype, keys.dtype), torch.float32)
    codes, keys = codes.to(exact), keys.to(exact)
    device = codes.device.type
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        if metric == "cosine":
            codes, keys = F.normalize(codes, dim=-1), F.normalize(keys, dim=-1)
        scores, places = [], []
        for some in codes.split(max(1, _SCORES // len(keys))):
            score = some @ keys.T  # [V, N]
            if metric == "l2":
                squares = some.square().sum(-1, keepdim=True), keys.square().sum(-1)
                score = (2 * score - squares[1] - squares[0]).clamp_max(0)  # as in lmn_kernels
            if inactive is not None:
                score = score.masked_fill(inactive, -torch.inf)
            best = score.topk(k)
            scores.append(best.values)
            places.append(best.indices)
        return StoredLists(torch.cat(scores), torch.cat(places))


class ListStore:
    """Keeps lists for as long as the tensors that they were made of do not change. A copy starts empty.

    How a change is seen is in :mod:`.tensor_state`. Of tensors without a version, made under ``torch.inference_mode``,
    the contents are compared at each call. Of tensors without data lists are made at each call, and not kept.
    """

    def __init__(self) -> None:
        self._of: tuple[Tensor, ...] = ()
        self._storages: tuple[torch.UntypedStorage, ...] = ()  # held, so that no other tensor takes their place
        self._state: object = None
        self._contents: tuple[Tensor, ...] = ()
        self._lists: tuple[StoredLists, ...] = ()

    def __reduce__(self) -> tuple[type[ListStore], tuple[()]]:
        return ListStore, ()

    def get(self, of: Sequence[Tensor], k: int, make: Callable[[], Sequence[StoredLists]]) -> tuple[StoredLists, ...]:
        """The lists of ``k`` entries that ``make`` made of tensors, made anew if need be.

        Raises:
            RuntimeError: in ``torch.export`` there are none, or what they were made of has changed.
        """
        if torch.compiler.is_exporting():  # what stands for the tensors has no state
            if not self._lists or not self._are_of(self._of, k):
                raise RuntimeError(
                    "FactoredMemoryNetwork: call the network once before torch.export, to make its lists"
                )
            return self._lists
        if not all(map(has_data, of)):
            return tuple(make())
        if not self._are_of(of, k):
            with torch.inference_mode(False):  # or autograd could not save what is read of them
                self._lists = tuple(make())
            self._of, self._state = tuple(of), (k, *map(state_of, of))
            self._storages = tuple(tensor.untyped_storage() for tensor in of)
            self._contents = tuple(tensor.clone() for tensor in of if tensor.is_inference())
        return self._lists

    def _are_of(self, of: Sequence[Tensor], k: int) -> bool:
        """Whether the lists are those of ``k`` entries of tensors as they are now."""
        if self._state != (k, *map(state_of, of)):
            return False
        unversioned = (tensor for tensor in of if tensor.is_inference())
        return all(map(torch.equal, unversioned, self._contents))
