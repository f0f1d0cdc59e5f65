"""Ids of the values of one column and the scale of its numbers, learnt from the training part alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.features import FIRST_KNOWN, UNSEEN
from lmn_model.data.schema import DataError


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
    def fit(cls, column: pl.Series) -> Scale:
        """Mean and standard deviation of float64 values that are finite."""
        values = column.to_numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # apply() refuses what a scale cannot hold
            mean, deviation = float(values.mean()), float(values.std())
        return cls(mean, deviation if deviation > 0 else 1.0)

    def apply(self, column: pl.Series) -> NDArray[np.float32]:
        """The column in standard units, float32 [R]; null, which only a history-only event may hold, gives 0.

        Raises:
            DataError: if a finite number is so far from those of training that float32 cannot hold it.
        """
        scaled = ((column - self.mean) / self.deviation).cast(pl.Float32)
        far = column.filter(column.is_finite() & ~scaled.is_finite())
        if len(far):
            raise DataError(
                f"column {column.name!r}: {far[0]!r} in standard units, mean {self.mean:g} and deviation "
                f"{self.deviation:g} in training, is no finite float32"
            )
        return scaled.fill_null(0.0).to_numpy()


@dataclass(frozen=True, eq=False)
class Encoder:
    """Vocabularies and scales of all feature columns, by column."""

    vocabularies: Mapping[str, Vocabulary]
    scales: Mapping[str, Scale]

    def encode(self, frame: pl.DataFrame, columns: tuple[str, ...]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and numbers of checked columns, in the order of ``columns``.

        Returns:
            int64 [R, F] of the categorical columns, float32 [R, X] of the numeric ones.
        """
        categorical = [name for name in columns if name in self.vocabularies]
        numeric = [name for name in columns if name in self.scales]
        ids = np.empty((frame.height, len(categorical)), dtype=np.int64)
        for place, name in enumerate(categorical):
            ids[:, place] = self.vocabularies[name].encode(frame[name])
        numbers = np.empty((frame.height, len(numeric)), dtype=np.float32)
        for place, name in enumerate(numeric):
            numbers[:, place] = self.scales[name].apply(frame[name])
        return ids, numbers
