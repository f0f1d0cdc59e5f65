"""Profiles: a memory of what similar users do, written by every event and read for a pair of an item and a user.

A factored memory counts what one user did. Its codes are random, so two users that share a slot share noise. Here the
rows of similar users become similar, and so do the rows of items that the same users choose, which lets the events of
one user count for another.

Level k keeps a row U_k for each user and V_k for each item. An event (user, item) reads all that it needs, and then
writes

    U_0[user] += w code[item]                 code: fixed random signs
    U_k[user] += w unit(V_(k-1)[item])        w = (events of the item so far + 10) ** -1/4
    V_k[item] += unit(unit(U_k[user]) - mean over the events of unit(U_k))

which is one step of a power iteration on the matrix of users and items, taken while events stream by: O(levels * D) for
an event, without a factorisation, a gradient or a second pass. All rows lie in one table, ``values``, which is read by
:func:`lmn_kernels.gather_aggregate` like the values of any memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmn_kernels import gather_aggregate, huge_zeros
from lmn_kernels.backend import check_backend
from lmn_kernels.checks import check_choice, check_int
from lmn_model.modules.hashing import hashed_rows, hashed_signs
from lmn_model.modules.pair_ids import checked_pairs

_NAME = "ProfileMemory"
_COMMON_ITEM = 10.0
"""Events that are added to an item's own before its weight is computed."""
_MEAN_DECAY = 0.99
_TOP = 10
_SIMILARITY_SCALE = 6.0
_COUNT_MEAN, _COUNT_SCALE = 4.0, 0.5
_ITEM, _USER = 0, 1


class ProfileMemory(nn.Module):
    """A memory whose rows of similar users, and of similar items, are similar.

    Nothing in it has a gradient: :meth:`write` adds to the rows. Read a step's pairs before you write its events.

    Args:
        item_size: how many ids items have.
        user_size: how many ids users have.
        levels: steps of the power iteration, at least 1.
        dim: D, width of a row.
        rows: rows of a level for users, and as many for items; ids share them by a hash, and each is bound to random
            signs of its own, so that rows that are shared add noise and no bias. None gives each id a row.
        unseen: the id shared by all values that training had no id for; None if there is none. Its events are not
            written, and its pairs are read as zeros.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.
        device: of the memory; None for torch's default.

    Attributes:
        values: ``[2 * levels * rows, D]``, the rows of items, level by level, and then those of users.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size is out of range, or ``backend`` is unknown.

    Source: ours. A level is a step of the power method for the singular vectors of the interaction matrix; the random
    signs it starts from are a random projection, Achlioptas 2003, Database-friendly random projections.
    """

    def __init__(
        self,
        item_size: int,
        user_size: int,
        *,
        levels: int = 5,
        dim: int = 64,
        rows: int | None = None,
        unseen: int | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.item_size = check_int(_NAME, "item_size", item_size, low=1)
        self.user_size = check_int(_NAME, "user_size", user_size, low=1)
        self.levels = check_int(_NAME, "levels", levels, low=1)
        self.dim = check_int(_NAME, "dim", dim, low=1)
        self.rows = None if rows is None else check_int(_NAME, "rows", rows, low=1)
        self.unseen = None if unseen is None else check_int(_NAME, "unseen", unseen)
        check_backend(_NAME, backend)
        self.backend = backend
        self._sizes = (self.item_size, self.user_size) if rows is None else (self.rows, self.rows)
        table = huge_zeros(self.levels * sum(self._sizes), self.dim, device=device)
        self.values = nn.Parameter(table, requires_grad=False)
        self.mean: Tensor
        self.item_events: Tensor
        self.user_events: Tensor
        self.register_buffer("mean", torch.zeros(self.levels, self.dim, device=device))
        self.register_buffer("item_events", torch.zeros(self._sizes[_ITEM], device=device))
        self.register_buffer("user_events", torch.zeros(self._sizes[_USER], device=device))

    def reset_parameters(self) -> None:
        """Empty the memory."""
        self.reset_values()

    @torch.no_grad()
    def reset_values(self) -> None:
        """Empty the memory, as before another pass over the same events."""
        for tensor in (self.values, self.mean, self.item_events, self.user_events):
            tensor.zero_()

    @property
    def signals(self) -> int:
        """Numbers that a read gives the tower."""
        return 2 * self.levels - 1 + 3 + 2

    @torch.no_grad()
    def forward(self, item: Tensor, user: Tensor, window: Tensor, mask: Tensor) -> Tensor:
        """What similar users did with an item.

        Args:
            item: ``[B]`` ids of the items.
            user: ``[B]`` ids of the users.
            window: ``[B, T]`` ids of the items of each user's newest events; T may be 0.
            mask: bool ``[B, T]``, True where ``window`` is real.

        Returns:
            ``[B, signals]`` without a gradient: the cosine of U_k (less the mean over users) and V_k for each level;
            the same of U_(k+1) and V_k; mean, maximum and mean of the ten largest cosines of the item's V and those of
            the distinct other items in the window, at the last level; and log(1 + events) of item and user. All are
            scaled to be of order 1, and 0 where nothing was written.

        Raises:
            TypeError: ids are neither int64 nor int32.
            ValueError: ids are not of these shapes, or, on a CPU, out of range.
        """
        item, user = checked_pairs(item, user, self.item_size, self.user_size, name=_NAME)
        rows = item.shape[0]  # len() would fix it in an export
        if window.ndim != 2 or window.shape[0] != rows or mask.shape != window.shape:
            raise ValueError(
                f"{_NAME}: window must be [B = {rows}, T] with a mask of its shape, got {list(window.shape)} and "
                f"{list(mask.shape)}"
            )
        known = self._known(item, user).to(self.values.dtype).unsqueeze(1)
        items = _unit(self._read(item, _ITEM))  # [B, levels, D]
        users = self._centred(_unit(self._read(user, _USER)))
        similarities = [(users * items).sum(-1), (users[:, 1:] * items[:, :-1]).sum(-1)]
        near = self._window_similarity(item, items[:, -1], window, mask)
        counts = torch.stack((self._count(item, _ITEM), self._count(user, _USER)), dim=1).log1p()
        features = [_SIMILARITY_SCALE * torch.cat((*similarities, near), dim=1), (counts - _COUNT_MEAN) * _COUNT_SCALE]
        return torch.cat(features, dim=1) * known

    @torch.no_grad()
    def write(self, item: Tensor, user: Tensor) -> None:
        """Write events; all of them read the memory as it was before the call.

        Args:
            item: ``[P]`` ids of the items.
            user: ``[P]`` ids of the users.

        Raises:
            TypeError, ValueError: as :meth:`forward`.
        """
        item, user = checked_pairs(item, user, self.item_size, self.user_size, name=_NAME)
        known = self._known(item, user)
        item, user = item[known], user[known]
        if not len(item):
            return
        weight = (self._count(item, _ITEM) + _COMMON_ITEM).pow(-0.25)[:, None, None]
        items, users = _unit(self._read(item, _ITEM)), _unit(self._read(user, _USER))  # [P, levels, D]
        codes = hashed_signs(item, self.dim).to(items.dtype).unsqueeze(1)
        to_items = self._centred(users)
        self._add(user, _USER, weight * torch.cat((codes, items[:, :-1]), dim=1))
        self._add(item, _ITEM, to_items)
        self.mean.mul_(_MEAN_DECAY).add_(users.mean(0), alpha=1 - _MEAN_DECAY)
        for ids, kind, events in ((item, _ITEM, self.item_events), (user, _USER, self.user_events)):
            events.index_add_(0, self._rows_of(ids, kind), torch.ones_like(weight[:, 0, 0]))

    def similar(self, ids: Tensor, others: Tensor, kind: str) -> Tensor:
        """Cosines ``[R, S]`` of the last level's rows of ids ``[R]`` and others ``[S]``.

        Args:
            ids: of items or users.
            others: of the same kind.
            kind: ``"item"`` or ``"user"``.

        Raises:
            ValueError: ``kind`` is neither.
        """
        check_choice(_NAME, "kind", kind, ("item", "user"))
        which = _ITEM if kind == "item" else _USER
        first, second = (_unit(self._read(each, which)) for each in (ids, others))
        if which == _USER:
            first, second = self._centred(first), self._centred(second)
        return first[:, -1] @ second[:, -1].T

    def _known(self, item: Tensor, user: Tensor) -> Tensor:
        """Bool ``[B]``: neither id is that of the unseen."""
        if self.unseen is None:
            return torch.ones_like(item, dtype=torch.bool)
        return (item != self.unseen) & (user != self.unseen)

    def _rows_of(self, ids: Tensor, kind: int) -> Tensor:
        return ids if self.rows is None else hashed_rows(ids, self.rows, salt=kind + 1)

    def _slots(self, ids: Tensor, kind: int, levels: Tensor) -> Tensor:
        """Rows of ``values``, ``[B, len(levels)]``."""
        first = self.levels * self._sizes[_ITEM] if kind == _USER else 0
        return first + levels * self._sizes[kind] + self._rows_of(ids, kind).unsqueeze(1)

    def _all_levels(self) -> Tensor:
        return torch.arange(self.levels, device=self.values.device)

    def _read(self, ids: Tensor, kind: int, levels: Tensor | None = None) -> Tensor:
        """Rows of ids ``[B]``, ``[B, len(levels), D]``; all levels by default."""
        slots = self._slots(ids, kind, self._all_levels() if levels is None else levels)
        bags = slots.reshape(-1, 1)
        rows = gather_aggregate(self.values, bags, torch.ones_like(bags, dtype=self.values.dtype), backend=self.backend)
        rows = rows.view(*slots.shape, self.dim)
        return rows if self.rows is None else rows * self._signs(ids, kind)

    def _signs(self, ids: Tensor, kind: int) -> Tensor:
        """What the rows of ids ``[B]`` are bound to, ``[B, 1, D]``."""
        return hashed_signs(ids, self.dim, salt=3 + kind).to(self.values.dtype).unsqueeze(1)

    def _add(self, ids: Tensor, kind: int, rows: Tensor) -> None:
        """Add ``[P, levels, D]`` to the rows of ids ``[P]``."""
        if self.rows is not None:
            rows = rows * self._signs(ids, kind)
        slots = self._slots(ids, kind, self._all_levels())
        self.values.index_add_(0, slots.flatten(), rows.flatten(0, 1).to(self.values.dtype))

    def _count(self, ids: Tensor, kind: int) -> Tensor:
        events = self.item_events if kind == _ITEM else self.user_events
        return events[self._rows_of(ids, kind)]

    def _centred(self, users: Tensor) -> Tensor:
        """Unit rows of users ``[B, levels, D]`` less the mean over users, unit again; empty rows stay zeros."""
        return _unit((users - self.mean) * users.any(-1, keepdim=True))

    def _window_similarity(self, item: Tensor, row: Tensor, window: Tensor, mask: Tensor) -> Tensor:
        """Mean, maximum and mean of the ten largest cosines to the distinct other items of the window, ``[B, 3]``."""
        if window.shape[1] == 0:
            return row.new_zeros(row.shape[0], 3)
        last = torch.full((1,), self.levels - 1, device=row.device)
        rows = self._read(window.flatten(), _ITEM, last).view(*window.shape, self.dim)
        cosines = torch.einsum("btd,bd->bt", _unit(rows), row)
        distinct = mask & _first_of_each(window) & (window != item.unsqueeze(1))
        count = distinct.sum(1)
        mean = (cosines * distinct).sum(1) / count.clamp_min(1)
        best = cosines.masked_fill(~distinct, -torch.inf).topk(min(_TOP, window.shape[1]), dim=1).values
        best = torch.where(best.isfinite(), best, 0.0)
        return torch.stack((mean, best[:, 0], best.sum(1) / count.clamp(1, best.shape[1])), dim=1)

    def extra_repr(self) -> str:
        return (
            f"item_size={self.item_size}, user_size={self.user_size}, levels={self.levels}, dim={self.dim}, "
            f"rows={self.rows}, signals={self.signals}"
        )


def _unit(rows: Tensor) -> Tensor:
    """Rows ``[..., D]`` of length 1; zeros stay zeros."""
    return rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_min(1e-9)


def _first_of_each(ids: Tensor) -> Tensor:
    """Bool ``[B, T]``: False where an earlier position of the row has the same id."""
    ordered, places = ids.sort(dim=1, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.empty_like(first).scatter_(1, places, first)
