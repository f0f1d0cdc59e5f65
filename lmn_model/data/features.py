"""Features of a data set: names, order and sizes for a model, and the encoded values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PADDING = 0
"""Id of a history position that holds no event."""
UNSEEN = 1
"""Id of every value that the training split does not hold."""
FIRST_KNOWN = 2
"""Id of the first value that the training split holds."""


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
        unseen: id of all values outside the training split; None if each value has its own id, as in prepared rows.
    """

    user: tuple[CategoricalFeature, ...]
    item: tuple[CategoricalFeature, ...]
    context: tuple[CategoricalFeature, ...]
    numeric: tuple[str, ...]
    unseen: int | None = UNSEEN

    def to_dict(self) -> dict[str, Any]:
        """The features as plain values for json."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeatureSpec:
        """Rebuild the features from ``to_dict``; a missing key raises KeyError, but for ``unseen``."""
        user, item, context = (
            tuple(CategoricalFeature(name=str(entry["name"]), size=int(entry["size"])) for entry in values[role])
            for role in ("user", "item", "context")
        )
        numeric, unseen = tuple(values["numeric"]), values.get("unseen", UNSEEN)
        return cls(user=user, item=item, context=context, numeric=numeric, unseen=unseen)


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
