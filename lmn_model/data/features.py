"""Features of a data set: names, order and sizes for a model, and the encoded values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PADDING = 0
"""Id of a history position that holds no event."""
UNSEEN = 1
"""Id of a value that is not given; without open ids that of every value that the training split does not hold."""
FIRST_KNOWN = 2
"""Id of the first value that the training split holds."""
FIRST_OPEN = 1 << 32
"""Open ids begin here: a value that the training split does not hold has a hash as its id, from here to below 2^62."""


@dataclass(frozen=True)
class CategoricalFeature:
    """A feature whose values are ids.

    Args:
        name: column of the event table.
        size: number of ids, with 0 = padding and 1 = unseen counted in.
    """

    name: str
    size: int


@dataclass(frozen=True)
class FeatureSpec:
    """Features of a batch, in the order of its columns.

    Args:
        user: F_u categorical features of the user; the first is the user id.
        item: F_i categorical features of the item; the first is the item id.
        context: F_c categorical features of the event.
        numeric: X numeric features of user, item and event, in this order.
        unseen: id that values without one of their own share; None if each value has its own id, as in prepared rows.
        open_ids: whether a value outside the training split has an open id, from ``FIRST_OPEN`` on, instead of
            ``unseen``.
    """

    user: tuple[CategoricalFeature, ...]
    item: tuple[CategoricalFeature, ...]
    context: tuple[CategoricalFeature, ...]
    numeric: tuple[str, ...]
    unseen: int | None = UNSEEN
    open_ids: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The features as plain values for json."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeatureSpec:
        """Rebuild the features from ``to_dict``; a missing key raises KeyError, but for ``unseen`` and ``open_ids``."""
        user, item, context = (
            tuple(CategoricalFeature(name=str(entry["name"]), size=int(entry["size"])) for entry in values[role])
            for role in ("user", "item", "context")
        )
        numeric, unseen = tuple(values["numeric"]), values.get("unseen", UNSEEN)
        open_ids = bool(values.get("open_ids", False))
        return cls(user=user, item=item, context=context, numeric=numeric, unseen=unseen, open_ids=open_ids)


def is_unseen(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether ids are of values that the training split does not hold, bool of the shape of ``ids``."""
    return (ids == UNSEEN) | (ids >= FIRST_OPEN)


def open_id(value: str) -> int:
    """The open id of a value: equal in every process and on every machine."""
    digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return FIRST_OPEN + int.from_bytes(digest, "little") % ((1 << 62) - FIRST_OPEN)


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Encoded features of the users, the items or the events, one row each.

    Args:
        ids: int64 [R, F], ids of the categorical features.
        numbers: float32 [R, X], numeric features in standard units.
    """

    ids: NDArray[np.int64]
    numbers: NDArray[np.float32]

    def followed_by(self, more: FeatureTable | None) -> FeatureTable:
        """The rows of this table and then those of another one, if there is one."""
        if more is None:
            return self
        return FeatureTable(np.concatenate([self.ids, more.ids]), np.concatenate([self.numbers, more.numbers]))
