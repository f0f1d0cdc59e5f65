"""The role of each column of an event table, and how its values are read.

A table of events is all that training needs. Every check of one raises a ``DataError`` that names the column, so that
users find a mistake in their file without a stack trace. The schema is saved with a run, so that a value means the same
in every later file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

from lmn_model.wording import did_you_mean, shown


class DataError(ValueError):
    """A table, a column or a data option cannot be used; the message says which and why, in one line."""


@dataclass(frozen=True)
class Schema:
    """Names of the columns of an event table, and the meaning of values whose types leave it open.

    Args:
        user: column of user ids, text or integers.
        item: column of item ids, text or integers.
        timestamp: column of event times: datetimes, dates or integers of any unit.
        label: column of 0/1 labels, or None when every event is a positive and negatives are to be sampled. An event
            whose label is null is no sample, yet it enters histories.
        user_features: columns that describe the user. Each user has one value: the last of the training split.
        item_features: columns that describe the item, with one value for each item in the same way.
        context_features: columns that describe the event itself, such as the hour or the device.
        numeric: feature columns whose values are measures, whatever they look like.
        categorical: feature columns whose values are names, whatever they look like.
            :mod:`lmn_model.data.events.kinds` decides the kind of all others from the training file.
        time_format: format of text times, as in ``datetime.strptime`` (``"%d/%m/%Y %H:%M"``); None reads ISO 8601 and
            integers alone.
        missing_numbers: ``"refuse"`` raises for a numeric feature without a value; ``"indicator"`` reads the mean and
            adds a numeric feature that is 1 where the value is missing.

    Raises:
        DataError: if a column has two roles, a name is empty, or ``numeric`` or ``categorical`` names no feature.
    """

    user: str = "user_id"
    item: str = "item_id"
    timestamp: str = "timestamp"
    label: str | None = None
    user_features: tuple[str, ...] = ()
    item_features: tuple[str, ...] = ()
    context_features: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    time_format: str | None = None
    missing_numbers: Literal["refuse", "indicator"] = "refuse"

    def __post_init__(self) -> None:
        for name in ("user_features", "item_features", "context_features", "numeric", "categorical"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise DataError(f"schema: {name} must be a list of column names, got the text {value!r}")
            object.__setattr__(self, name, tuple(value))
        seen: set[str] = set()
        for column in self.columns:
            if not isinstance(column, str) or not column:
                raise DataError(f"schema: a column name must be a text that is not empty, got {column!r}")
            if column in seen:
                raise DataError(f"schema: column {shown(column)} is named twice; a column has one role")
            seen.add(column)
        for name in ("numeric", "categorical"):
            for column in getattr(self, name):
                if column not in self.features:
                    near = did_you_mean(str(column), self.features)
                    raise DataError(f"{name}: must name feature columns, got {shown(column)}{near}")
        if both := set(self.numeric) & set(self.categorical):
            raise DataError(f"numeric and categorical: a column has one kind, but both name {shown(min(both))}")
        if self.missing_numbers not in ("refuse", "indicator"):
            raise DataError(f"missing_numbers must be 'refuse' or 'indicator', got {self.missing_numbers!r}")

    @property
    def columns(self) -> tuple[str, ...]:
        """All named columns: user, item, timestamp, label if there is one, then the features."""
        label = () if self.label is None else (self.label,)
        return (self.user, self.item, self.timestamp, *label, *self.features)

    @property
    def features(self) -> tuple[str, ...]:
        """Feature columns in the order user, item, context."""
        return (*self.user_features, *self.item_features, *self.context_features)

    def to_dict(self) -> dict[str, object]:
        """The schema as plain values for json."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Schema:
        """Rebuild a schema from ``to_dict``.

        Raises:
            DataError: if a key is no field of the schema.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise DataError(f"schema: unknown field {name!r}; the fields are {', '.join(known)}")
        return cls(**dict(values))  # type: ignore[arg-type]
