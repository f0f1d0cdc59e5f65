"""Open ids: integers that no size bounds, such as hashes of names. Nothing is stored for an id."""

from __future__ import annotations

import torch
from torch import Tensor

from lmn_model.modules.hashing import hashed_rows


def rows_of_ids(ids: Tensor, own: int, shared: int, salt: int = 0) -> Tensor:
    """The row of each id in a table of ``own + shared`` rows, int64 of the shape of ``ids``.

    Args:
        ids: integers; any if there are shared rows, else from 0 to ``own - 1``.
        own: ids from 0 to ``own - 1`` have the row of their number.
        shared: the others share so many rows after those, by a hash.
        salt: of the hash.
    """
    if not shared:
        return ids
    if not own:
        return hashed_rows(ids, shared, salt)
    return torch.where(is_own(ids, own), ids, own + hashed_rows(ids, shared, salt))


def is_own(ids: Tensor, own: int | Tensor) -> Tensor:
    """Bool of the shape of ``ids``: from 0 to ``own - 1``."""
    return (ids >= 0) & (ids < own)
