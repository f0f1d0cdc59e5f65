"""Fixed codes of ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lmn_model.modules.hashing import hashed, hashed_signs
from lmn_model.modules.open_ids import is_own
from lmn_model.modules.tensor_state import has_data


def draw_codes(ids: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """Random signs ``[ids, width]`` in torch's default type."""
    return torch.randint(2, (ids, width), device=device).mul_(2).sub_(1).to(torch.get_default_dtype())


def id_offsets(item_sizes: Sequence[int], marginals: bool, device: torch.device | str | None = None) -> Tensor:
    """Where each feature's ids begin among the codes of all, int64; any item is one more feature."""
    sizes = (0, *item_sizes) if marginals else (0, *item_sizes[:-1])
    return torch.tensor(sizes, device=device).cumsum(0)


class IdCodes(NamedTuple):
    """Where the codes of ids ``[R, F]`` come from: the rows of a table, or hashes where ``hashed`` is True.

    Attributes:
        rows: ``[R, F]`` of the table; 0 where the code is a hash.
        hashed: bool ``[R, F]``; None if the table has them all.
        keys: ``[R, F]``, what the codes are hashes of; None as well.
    """

    rows: Tensor
    hashed: Tensor | None = None
    keys: Tensor | None = None

    @classmethod
    def of_items(cls, ids: Tensor, sizes: Sequence[int], offsets: Tensor) -> IdCodes:
        """Open ids ``[R, F]`` of features, whose known ids are those below ``sizes``, in rows from ``offsets`` on."""
        own = is_own(ids, torch.tensor(sizes, device=ids.device))
        keys = hashed(ids, salt=1) + torch.arange(len(sizes), device=ids.device)  # codes differ between features
        return cls(torch.where(own, ids + offsets, 0), ~own, keys)

    @classmethod
    def of_users(cls, ids: Tensor, size: int, any_user: int) -> IdCodes:
        """Open ids ``[R, F]`` of users, whose known ids are those below ``size``; ``any_user`` has the row after."""
        own, anyone = is_own(ids, size), ids == any_user
        rows = torch.where(own, ids, torch.where(anyone, size, 0))
        return cls(rows, ~(own | anyone), hashed(ids, salt=2))

    def codes(self, table: Tensor) -> Tensor:
        """``[R, F, D]``."""
        return self.replaced((table[self.rows],), lambda keys: (hashed_signs(keys, table.shape[1]).to(table.dtype),))[0]

    def replaced(self, stored: tuple[Tensor, ...], made: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Each of ``stored`` ``[R, F, ...]`` with what ``made`` gives of keys ``[V]``, ``[V, ...]``, where codes are
        hashes.
        """
        if self.hashed is None or self.keys is None:
            return stored
        if torch.compiler.is_compiling() or not has_data(self.keys):  # no number of new ids can be read: make all
            new = (each.unflatten(0, self.keys.shape) for each in made(self.keys.flatten()))
            places = self.hashed.unsqueeze(-1)
            return tuple(torch.where(places, one, other) for one, other in zip(new, stored, strict=True))
        keys = self.keys[self.hashed]
        if not len(keys):
            return stored
        keys, places = keys.unique(return_inverse=True)
        return tuple(
            other.index_put((self.hashed,), one[places]) for one, other in zip(made(keys), stored, strict=True)
        )
