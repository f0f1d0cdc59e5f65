"""Ids of categorical values and scales of numbers, by column, learnt from the training split alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.features import FIRST_KNOWN, UNSEEN, FeatureTable, open_id
from lmn_model.data.schema import DataError
from lmn_model.data.tables.table import column_of
from lmn_model.wording import shown

_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Ids of the values of one column: value number n has id n + 2; null may be a value."""

    values: pl.Series

    @classmethod
    def fit(cls, column: pl.Series) -> Vocabulary:
        """The values of a text column, sorted, so that ids do not depend on the order of the rows."""
        return cls(column.unique().sort())

    @property
    def size(self) -> int:
        """Number of ids, with padding and unseen counted in."""
        return len(self.values) + FIRST_KNOWN

    def encode(self, column: pl.Series, open_ids: bool = False) -> NDArray[np.int64]:
        """Ids of a text column, int64 [R]: 2 and up for values of the training split, 1 for all others.

        With ``open_ids`` the others have a hash, see :func:`lmn_model.data.features.open_id`; null still has 1.
        """
        ids = pl.int_range(FIRST_KNOWN, self.size, eager=True)
        found = column.replace_strict(self.values, ids, default=UNSEEN, return_dtype=pl.Int64).to_numpy(writable=True)
        if open_ids:
            rows = np.flatnonzero((found == UNSEEN) & column.is_not_null().to_numpy())
            new = column.gather(rows)
            values = new.unique()
            hashes = pl.Series([open_id(value) for value in values], dtype=pl.Int64)
            found[rows] = new.replace_strict(values, hashes, return_dtype=pl.Int64).to_numpy()
        return found


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of a numeric column; a constant column has deviation 1."""

    mean: float
    deviation: float

    @classmethod
    def fit(cls, column: pl.Series, name: str) -> Scale:
        """Mean and standard deviation of the float64 values that are not null.

        Raises:
            DataError: if there is none.
        """
        values = column.drop_nulls().to_numpy()
        if not len(values):
            raise DataError(
                f"column {shown(name)}: a numeric feature must have a number in the training split, got none"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # apply() refuses what a scale cannot hold
            mean, deviation = float(values.mean()), float(values.std())
        # The sums of a constant column round: their deviation is not 0, but no larger than this.
        rounding = 8 * np.finfo(np.float64).eps * float(np.abs(values).max())
        return cls(mean, 1.0 if deviation <= rounding else deviation)

    def apply(self, column: pl.Series, name: str) -> NDArray[np.float32]:
        """The column in standard units, float32 [R]; null gives 0, the mean.

        Raises:
            DataError: if a finite number is so far from those of training that float32 cannot hold it.
        """
        scaled = ((column - self.mean) / self.deviation).cast(pl.Float32)
        far = column.filter(column.is_finite() & ~scaled.is_finite())
        if len(far):
            raise DataError(
                f"column {shown(name)}: {far[0]!r} in standard units, mean {self.mean:g} and deviation "
                f"{self.deviation:g} in training, is no finite float32"
            )
        return scaled.fill_null(0.0).to_numpy()


@dataclass(frozen=True, eq=False)
class Encoder:
    """Vocabularies and scales of all feature columns, by column.

    Args:
        vocabularies: of the categorical columns.
        scales: of the numeric columns.
        indicators: whether each numeric column is followed by one that is 1 where its value is missing, else 0.
        open_ids: whether values that training has not seen have open ids.
    """

    vocabularies: Mapping[str, Vocabulary]
    scales: Mapping[str, Scale]
    indicators: bool = False
    open_ids: bool = False

    def numeric_names(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the numeric features that ``encode`` makes of ``columns``, in its order."""
        suffixes = ("", " is missing") if self.indicators else ("",)
        return tuple(f"{name}{suffix}" for name in columns if name in self.scales for suffix in suffixes)

    def encode(self, frame: pl.DataFrame, columns: tuple[str, ...]) -> FeatureTable:
        """Encode checked columns, in the order of ``columns``; where ``frame`` lacks one, it is unseen or missing."""
        ids, numeric = [], []
        for name in columns:
            column = column_of(frame, name) if name in frame.columns else None
            if name in self.vocabularies:
                ids.append(UNSEEN if column is None else self.vocabularies[name].encode(column, self.open_ids))
            else:
                numeric.append(0.0 if column is None else self.scales[name].apply(column, name))
                if self.indicators:
                    numeric.append(1.0 if column is None else column.is_null().to_numpy())
        return FeatureTable(_stacked(ids, frame.height, np.int64), _stacked(numeric, frame.height, np.float32))

    def column(self, table: FeatureTable, columns: tuple[str, ...], name: str) -> NDArray[Any]:
        """Ids or numbers of one of ``columns`` in a table that ``encode`` made of them, [R]."""
        encoders = self.scales if name in self.scales else self.vocabularies
        place = [each for each in columns if each in encoders].index(name)
        return table.numbers[:, place * (1 + self.indicators)] if name in self.scales else table.ids[:, place]


def _stacked(columns: list[Any], rows: int, dtype: type[_Number]) -> NDArray[_Number]:
    """Columns, or values that fill one, as a table [R, len(columns)]."""
    table = np.empty((rows, len(columns)), dtype=dtype)
    for place, column in enumerate(columns):
        table[:, place] = column
    return table
