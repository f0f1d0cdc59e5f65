"""The table of a profile memory: a row of D numbers for each item and each user at each level."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lmn_kernels import gather_aggregate, huge_zeros
from lmn_model.modules.hashing import hashed_signs
from lmn_model.modules.open_ids import is_own, rows_of_ids

Kind = Literal["item", "user"]
_SALTS = {"item": 1, "user": 2}


class ProfileTable(nn.Module):
    """Rows that are read by :func:`lmn_kernels.gather_aggregate` and that writes add to; there is no gradient.

    Ids that have no row of their own share rows by a hash. Each of them has random signs, which its row is multiplied
    with when it is written and when it is read: what other ids wrote then adds noise.

    Args:
        item_size: so many items have a row of their own; without ``rows`` alone.
        user_size: the same of users.
        levels: rows of an id.
        dim: D, width of a row.
        rows: rows of a level that all users share, and as many for items; None gives ids rows of their own.
        open_rows: without ``rows``, rows of a level more that users beyond the size share, and as many for items.
        backend: ``"auto"``, ``"triton"`` or ``"torch"``.
        device: of the table; None for torch's default.

    Attributes:
        values: ``[levels * (item rows + user rows), D]``, the rows of items, level by level, and then those of users.
        sizes: rows of a level for items and for users.
    """

    def __init__(
        self,
        item_size: int | None,
        user_size: int | None,
        levels: int,
        dim: int,
        *,
        rows: int | None,
        open_rows: int,
        backend: str,
        device: torch.device | str | None,
    ) -> None:
        super().__init__()
        self.levels, self.dim, self.backend = levels, dim, backend
        self.own: dict[Kind, int] = {"item": 0 if rows else item_size or 0, "user": 0 if rows else user_size or 0}
        self.shared = rows or open_rows
        self.sizes: dict[Kind, int] = {"item": self.own["item"] + self.shared, "user": self.own["user"] + self.shared}
        self.values = nn.Parameter(
            huge_zeros(levels * sum(self.sizes.values()), dim, device=device), requires_grad=False
        )

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set all rows to 0."""
        self.values.zero_()

    def rows_of(self, ids: Tensor, kind: Kind) -> Tensor:
        """The row of each id within a level, int64 of the shape of ``ids``."""
        return rows_of_ids(ids, self.own[kind], self.shared, salt=_SALTS[kind])

    def read(self, ids: Tensor, kind: Kind, *, last: bool = False) -> Tensor:
        """Rows of ids ``[B]``: ``[B, levels, D]``, or ``[B, 1, D]`` of the last level alone."""
        slots = self._slots(ids, kind)[:, -1:] if last else self._slots(ids, kind)
        bags = slots.reshape(-1, 1)
        weights = torch.ones_like(bags, dtype=self.values.dtype)
        rows = gather_aggregate(self.values, bags, weights, backend=self.backend).view(*slots.shape, self.dim)
        return rows * self._signs(ids, kind) if self.shared else rows

    def add(self, ids: Tensor, kind: Kind, rows: Tensor) -> None:
        """Add ``[P, levels, D]`` to the rows of ids ``[P]``."""
        if self.shared:
            rows = rows * self._signs(ids, kind)
        self.values.index_add_(0, self._slots(ids, kind).flatten(), rows.flatten(0, 1).to(self.values.dtype))

    def _slots(self, ids: Tensor, kind: Kind) -> Tensor:
        """Rows of ``values``, ``[B, levels]``."""
        first = self.levels * self.sizes["item"] if kind == "user" else 0
        levels = torch.arange(self.levels, device=ids.device)
        return first + levels * self.sizes[kind] + self.rows_of(ids, kind).unsqueeze(1)

    def _signs(self, ids: Tensor, kind: Kind) -> Tensor:
        """What the rows of ids ``[B]`` are multiplied with, ``[B, 1, D]``."""
        signs = hashed_signs(ids, self.dim, salt=2 + _SALTS[kind]).to(self.values.dtype)
        if own := self.own[kind]:
            signs = signs.masked_fill(is_own(ids, own).unsqueeze(1), 1)
        return signs.unsqueeze(1)
