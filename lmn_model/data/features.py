"""What a model must know about the data to be built: names, order and sizes of its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PADDING = 0
"""Id of a history position that holds no event."""
UNSEEN = 1
"""Id of every value that the training part does not hold."""
FIRST_KNOWN = 2
"""Id of the first value that the training part holds."""


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
        unseen: id of all values that training does not hold; None if every id is a value's own, as in prepared rows.
    """

    user: tuple[CategoricalFeature, ...]
    item: tuple[CategoricalFeature, ...]
    context: tuple[CategoricalFeature, ...]
    numeric: tuple[str, ...]
    unseen: int | None = UNSEEN

    def to_dict(self) -> dict[str, Any]:
        """The features as plain values for json."""
        parts = {"user": self.user, "item": self.item, "context": self.context}
        plain: dict[str, Any] = {
            part: [{"name": feature.name, "size": feature.size} for feature in features]
            for part, features in parts.items()
        }
        return {**plain, "numeric": list(self.numeric), "unseen": self.unseen}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FeatureSpec:
        """Rebuild the features from ``to_dict``; a missing key raises KeyError, but for ``unseen``."""
        user, item, context = (
            tuple(CategoricalFeature(name=str(entry["name"]), size=int(entry["size"])) for entry in values[part])
            for part in ("user", "item", "context")
        )
        numeric, unseen = tuple(values["numeric"]), values.get("unseen", UNSEEN)
        return cls(user=user, item=item, context=context, numeric=numeric, unseen=unseen)
