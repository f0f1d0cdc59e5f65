"""Features of all users or of all items, one row each, under the ids of the training part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.features import UNSEEN
from lmn_model.data.vocabulary import Encoder


@dataclass(frozen=True, eq=False)
class Entities:
    """Users or items.

    Args:
        keys: ids as text, all different.
        ids: int64 [R, F], vocabulary ids; column 0 is that of the key.
        numbers: float32 [R, X], standardised.
    """

    keys: pl.Series
    ids: NDArray[np.int64]
    numbers: NDArray[np.float32]

    @classmethod
    def describe(cls, frame: pl.DataFrame, columns: tuple[str, ...], encoder: Encoder) -> Entities:
        """Encode a table with one row for each key, which ``columns`` names first."""
        return cls(frame[columns[0]], *encoder.encode(frame.select(columns), columns))

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, column: pl.Series) -> NDArray[np.int32]:
        """Row of each id in a text column, int32 [R]; every id must be a key."""
        rows = pl.int_range(len(self.keys), dtype=pl.Int32, eager=True)
        return column.replace_strict(self.keys, rows, return_dtype=pl.Int32).to_numpy()

    def extended(self, frame: pl.DataFrame, columns: tuple[str, ...], encoder: Encoder) -> Entities:
        """These and the new ones of an event table in the order of time, each with the features of its first row."""
        key = columns[0]
        new = frame.select(columns).join(self.keys.to_frame(), on=key, how="anti")
        return self._with(Entities.describe(new.group_by(key).first().sort(key), columns, encoder))

    def with_unknown(self, column: pl.Series) -> Entities:
        """These and those of a text column that nothing is known of: every feature unseen, every number average."""
        key = self.keys.name
        new = column.rename(key).unique().to_frame().join(self.keys.to_frame(), on=key, how="anti")[key].sort()
        ids = np.full((len(new), self.ids.shape[1]), UNSEEN, dtype=np.int64)
        return self._with(Entities(new, ids, np.zeros((len(new), self.numbers.shape[1]), dtype=np.float32)))

    def _with(self, added: Entities) -> Entities:
        return Entities(
            keys=pl.concat([self.keys, added.keys]),
            ids=np.concatenate([self.ids, added.ids]),
            numbers=np.concatenate([self.numbers, added.numbers]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Columns as plain lists for json."""
        return {"keys": self.keys.to_list(), "ids": self.ids.T.tolist(), "numbers": self.numbers.T.tolist()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], name: str) -> Entities:
        """Rebuild from ``to_dict``, with ``name`` for the column of keys."""
        keys = pl.Series(name, plain["keys"], dtype=pl.String)
        ids = np.array(plain["ids"], dtype=np.int64).reshape(len(plain["ids"]), len(keys))
        numbers = np.array(plain["numbers"], dtype=np.float32).reshape(len(plain["numbers"]), len(keys))
        return cls(keys, np.ascontiguousarray(ids.T), np.ascontiguousarray(numbers.T))
