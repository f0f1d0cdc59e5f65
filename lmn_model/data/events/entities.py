"""Features of all users or of all items, one row each, under the ids of the training split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.events.encoder import Encoder
from lmn_model.data.features import FeatureTable
from lmn_model.data.tables.table import column_of


def first_rows(keys: pl.Series, known: pl.Series) -> pl.Series:
    """The first row of each key that is not in ``known``, in the order of the keys; both are text columns."""
    rows = pl.DataFrame({"key": keys, "row": pl.int_range(len(keys), eager=True)})
    new = rows.unique("key", keep="first").join(pl.DataFrame({"key": known}), on="key", how="anti")
    return new.sort("key")["row"]


@dataclass(frozen=True, eq=False)
class Entities:
    """Users or items.

    Args:
        columns: of the key, then of the features.
        keys: ids as text, all different.
        features: one row a key; column 0 of its ids is that of the key.
    """

    columns: tuple[str, ...]
    keys: pl.Series
    features: FeatureTable

    @classmethod
    def describe(cls, frame: pl.DataFrame, columns: tuple[str, ...], encoder: Encoder) -> Entities:
        """Encode a table with one row for each key, which ``columns`` names first."""
        return cls(columns, column_of(frame, columns[0]), encoder.encode(frame, columns))

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, column: pl.Series) -> NDArray[np.int32]:
        """Row of each id in a text column, int32 [R]; every id must be a key."""
        rows = pl.int_range(len(self.keys), dtype=pl.Int32, eager=True)
        return column.replace_strict(self.keys, rows, return_dtype=pl.Int32).to_numpy()

    def find(self, column: pl.Series) -> NDArray[np.int32]:
        """Row of each id in a text column, int32 [R]; -1 for an id that is no key."""
        rows = pl.int_range(len(self.keys), dtype=pl.Int32, eager=True)
        return column.replace_strict(self.keys, rows, default=-1, return_dtype=pl.Int32).to_numpy(writable=True)

    def extended(self, frame: pl.DataFrame, encoder: Encoder) -> Entities:
        """These and the new ones of an event table in the order of time, each with the features of its first row."""
        added = frame[first_rows(column_of(frame, self.columns[0]), self.keys)]
        return Entities(
            columns=self.columns,
            keys=pl.concat([self.keys, column_of(added, self.columns[0])]),
            features=self.features.followed_by(encoder.encode(added, self.columns)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Columns as plain lists for json."""
        return {
            "keys": self.keys.to_list(),
            "ids": self.features.ids.T.tolist(),
            "numbers": self.features.numbers.T.tolist(),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], columns: tuple[str, ...]) -> Entities:
        """Rebuild from ``to_dict``, with the names of ``columns``."""
        keys = pl.Series(plain["keys"], dtype=pl.String)
        ids, numeric = (
            np.ascontiguousarray(np.array(plain[name], dtype=dtype).reshape(len(plain[name]), len(keys)).T)
            for name, dtype in (("ids", np.int64), ("numbers", np.float32))
        )
        return cls(columns, keys, FeatureTable(ids, numeric))
