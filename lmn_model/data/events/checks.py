"""Checks of single columns. They leave few types: ids and categories are text, numbers float64 and labels float32.

Ids become text because 17 in a parquet file and "17" in a CSV are the same user.
"""

from __future__ import annotations

from typing import Literal

import polars as pl

from lmn_model.data.events.kinds import Kind, is_missing, to_numbers
from lmn_model.data.schema import DataError
from lmn_model.data.tables.table import Column
from lmn_model.wording import shown


def check_ids(column: Column) -> pl.Series:
    """Ids as text. Raises DataError for null and for types other than text and integer."""
    name, values = shown(column.name), column.values
    if not (column.is_text or values.dtype.is_integer()):
        raise DataError(f"column {name}: ids must be text or integers, got {values.dtype}")
    ids = values.cast(pl.String)
    absent = (ids == "").fill_null(True)
    if count := int(absent.sum()):
        raise DataError(
            f"column {name}: ids must not be null or empty, got null in {count} rows, the first in {column.at(absent)}"
        )
    return ids


def check_labels(column: Column) -> pl.Series:
    """Labels as float32, null where the event is history only. Raises DataError for any value but 0, 1 and null."""
    name, values = shown(column.name), column.values
    if column.is_text:
        text = values.cast(pl.String).str.strip_chars().str.to_lowercase().replace({"": None})
        labels = text.replace({"true": "1", "false": "0"}).cast(pl.Float64, strict=False)
        wrong = text.is_not_null() & ~labels.is_in([0.0, 1.0]).fill_null(False)
    elif values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null):
        labels = values.cast(pl.Float64)
        wrong = ~labels.is_in([0.0, 1.0]).fill_null(True)
    else:
        raise DataError(f"column {name}: labels must be 0 or 1, got {values.dtype}")
    if count := int(wrong.sum()):
        found = ", ".join(shown(value) for value in values.filter(wrong).unique(maintain_order=True).head(5))
        raise DataError(
            f"column {name}: labels must be 0 or 1, or empty for an event that is no sample, got "
            f"{found} in {count} rows, the first in {column.at(wrong)}"
        )
    return labels.cast(pl.Float32)


def check_feature(
    column: Column,
    kind: Kind,
    *,
    missing: Literal["refuse", "indicator"] = "refuse",
    checked_rows: pl.Series | None = None,
) -> pl.Series:
    """A feature as text or float64; null where it is missing.

    Args:
        column: the values.
        kind: the kind of the column in the run.
        missing: whether numbers may be missing, see ``Schema.missing_numbers``.
        checked_rows: bool mask of the rows that must have a number; None for all.

    Raises:
        DataError: if the type can be no feature, a value is no number where the kind is numeric, or a checked number
            is missing or infinite.
    """
    name, values = shown(column.name), column.values
    if values.dtype.is_nested() or values.dtype in (pl.Binary, pl.Object, pl.Duration):
        raise DataError(f"column {name}: a feature must be text, a number, a boolean or a date, got {values.dtype}")
    if kind == "categorical":
        return _as_names(values)
    checked = _as_numbers(column)
    if missing == "refuse":
        absent = checked.is_null()
        column.refuse(
            absent if checked_rows is None else absent & checked_rows,
            "a numeric feature must have a finite number",
            "; a model that is trained with --missing-numbers indicator takes missing ones, "
            f"one with --categorical {name} any value",
        )
    return checked


def _as_numbers(column: Column) -> pl.Series:
    """float64, null where a number is missing."""
    name, values = shown(column.name), column.values
    if column.is_text:
        text = values.cast(pl.String)
        parsed = to_numbers(text)
        if (wrong := parsed.is_null()).any():
            column.refuse(wrong & ~is_missing(text), "a numeric feature must be a finite number such as 3.20")
        return parsed
    if not (values.dtype.is_numeric() or values.dtype in (pl.Null, pl.Boolean)):
        raise DataError(f"column {name}: it is numeric in this run, but has the type {values.dtype} here")
    floats = values.cast(pl.Float64).fill_nan(None)
    infinite = floats.is_infinite().fill_null(False)
    if count := int(infinite.sum()):
        raise DataError(
            f"column {name}: {column.at(infinite)}: a numeric feature must be finite, got infinity in {count} rows"
        )
    return floats


def _as_names(values: pl.Series) -> pl.Series:
    """Text, null where it is empty.

    Integers in a float column lose their ``.0``: pandas writes codes so where some are missing.
    """
    if not values.dtype.is_float():
        return values.cast(pl.String).replace({"": None})
    values = values.fill_nan(None)
    integers = values.cast(pl.Int64, strict=False)
    exact = (integers.cast(pl.Float64) == values.cast(pl.Float64)).fill_null(False)
    return values.cast(pl.String).zip_with(~exact, integers.cast(pl.String))
