"""Ids of the values of one column and the scale of its numbers, learnt from the training part alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.features import FIRST_KNOWN, UNSEEN
from lmn_model.data.schema import DataError
from lmn_model.data.tables.table import column_of
from lmn_model.wording import shown


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

    def encode(self, column: pl.Series) -> NDArray[np.int64]:
        """Ids of a text column, int64 [R]: 2 and up for values known from training, 1 for all others."""
        ids = pl.int_range(FIRST_KNOWN, self.size, eager=True)
        return column.replace_strict(self.values, ids, default=UNSEEN, return_dtype=pl.Int64).to_numpy()


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
                f"column {shown(name)}: a numeric feature must have numbers in the training split, got none"
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
    """

    vocabularies: Mapping[str, Vocabulary]
    scales: Mapping[str, Scale]
    indicators: bool = False

    def numbers_of(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the numbers that ``encode`` makes of ``columns``, in its order."""
        numeric = [name for name in columns if name in self.scales]
        return tuple(
            each for name in numeric for each in ((name, f"{name} is missing") if self.indicators else (name,))
        )

    def places(self, columns: tuple[str, ...]) -> tuple[dict[str, int], dict[str, int]]:
        """Place of each categorical column among the ids, and of each number among the numbers, of ``columns``."""
        ids = [name for name in columns if name in self.vocabularies]
        return ({name: place for place, name in enumerate(ids)},
                {name: place for place, name in enumerate(self.numbers_of(columns))})  # fmt: skip

    def unknown(self, columns: tuple[str, ...]) -> NDArray[np.float32]:
        """Numbers of a user or an item that nothing is known of, float32 [X]: all average, all missing."""
        numeric = sum(name in self.scales for name in columns)
        return np.tile(np.array([0, 1] if self.indicators else [0], dtype=np.float32), numeric)

    def encode(self, frame: pl.DataFrame, columns: tuple[str, ...]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and numbers of checked columns, in the order of ``columns``.

        Returns:
            int64 [R, F] of the categorical columns, float32 [R, X] of the numeric ones.
        """
        categorical = [name for name in columns if name in self.vocabularies]
        ids = np.empty((frame.height, len(categorical)), dtype=np.int64)
        for place, name in enumerate(categorical):
            ids[:, place] = self.vocabularies[name].encode(column_of(frame, name))
        numbers = [
            column
            for name in columns
            if name in self.scales
            for column in (
                self.scales[name].apply(column_of(frame, name), name),
                *([column_of(frame, name).is_null().to_numpy()] if self.indicators else []),
            )
        ]
        if not numbers:
            return ids, np.empty((frame.height, 0), dtype=np.float32)
        return ids, np.stack(numbers, axis=1).astype(np.float32, copy=False)
