"""Check every column of an event table that training will use.

All the mistakes a table can hold are found here, once, before any time is spent. What comes out has few types: ids and
categories are text, numbers are float64, times are int64 and labels float32, so that the rest of the package neither
checks nor converts. Ids become text because 17 in a parquet file and "17" in a CSV are the same user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.clocks import Clock
from lmn_model.data.events.kinds import Kind, check_feature, kinds_of
from lmn_model.data.events.times import check_times
from lmn_model.data.schema import DataError, Schema
from lmn_model.data.tables.header import check_columns
from lmn_model.data.tables.table import Column, Table, column_of
from lmn_model.wording import shown


@dataclass(frozen=True, eq=False)
class Events:
    """A checked event table in the order of time; rows of one timestamp keep the order of the file.

    Args:
        frame: user and item as text, timestamp as int64, label as float32 (null: history only), features as text or
            float64, under the names of the schema.
        clock: what the timestamps were: datetimes, now microseconds since 1970 in UTC, or integers, left as they are.
        kinds: the kind of each feature column.
    """

    frame: pl.DataFrame
    clock: Clock
    kinds: Mapping[str, Kind]

    def times(self, schema: Schema) -> NDArray[np.int64]:
        """Timestamps, int64 [E]."""
        return column_of(self.frame, schema.timestamp).to_numpy()

    def samples(self, schema: Schema) -> NDArray[np.bool_]:
        """Which events are samples, bool [E]: all, or those with a label."""
        if schema.label is None:
            return np.ones(self.frame.height, dtype=np.bool_)
        return column_of(self.frame, schema.label).is_not_null().to_numpy()


def check_events(table: Table, schema: Schema, kinds: Mapping[str, Kind] | None = None) -> Events:
    """Check an event table and bring it to few types and the order of time.

    Args:
        table: the table; columns that the schema does not name are left out.
        schema: names of the columns.
        kinds: kinds of the feature columns as training saw them; None decides them from this table.

    Raises:
        DataError: if the table is empty or lacks a column; if an id or a timestamp is null or has another type; if a
            label is neither 0, 1 nor null; if a numeric feature holds no number (a context feature may be missing
            where the event has no label); if the kind of a feature cannot be decided.
    """
    check_columns(table.frame.columns, schema.columns, table.name)
    if table.frame.is_empty():
        raise DataError(f"{table.name}: the table is empty")
    try:
        clock, times = check_times(table.column(schema.timestamp), schema.time_format)
        columns = {name: check_ids(table.column(name)) for name in (schema.user, schema.item)}
        columns[schema.timestamp] = times
        labelled = None
        if schema.label is not None:
            columns[schema.label] = labels = check_labels(table.column(schema.label))
            labelled = labels.is_not_null()
        kinds = kinds_of(table, schema) if kinds is None else kinds
        for name in schema.features:
            checked = labelled if name in schema.context_features else None
            columns[name] = check_feature(
                table.column(name), kinds[name], missing=schema.missing_numbers, checked_rows=checked
            )
    except DataError as error:
        raise DataError(f"{table.name}: {error}") from error
    order = np.argsort(times.to_numpy(), kind="stable")  # rows of one timestamp keep the order of the file
    return Events(frame=pl.DataFrame(columns)[order], clock=clock, kinds=dict(kinds))


def check_ids(column: Column) -> pl.Series:
    """Ids as text. Raises DataError for null and for types other than text and integer."""
    values = column.values
    if not (values.dtype.is_integer() or values.dtype in (pl.String, pl.Categorical, pl.Enum)):
        raise DataError(f"column {shown(column.name)}: ids must be text or integers, got {values.dtype}")
    ids = values.cast(pl.String)
    absent = (ids == "").fill_null(True)
    if count := int(absent.sum()):
        raise DataError(
            f"column {shown(column.name)}: ids must not be null or empty, got null in {count} rows, "
            f"the first in {column.at(absent)}"
        )
    return ids


def check_labels(column: Column) -> pl.Series:
    """Labels as float32, null where the event is history only. Raises DataError for any value but 0, 1 and null."""
    values = column.values
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        text = values.cast(pl.String).str.strip_chars().str.to_lowercase()
        numbers = text.replace({"true": "1", "false": "0", "": None}).cast(pl.Float64, strict=False)
        wrong = text.is_not_null() & (text != "") & ~numbers.is_in([0.0, 1.0]).fill_null(False)
    elif values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null):
        numbers = values.cast(pl.Float64)
        wrong = ~numbers.is_in([0.0, 1.0]).fill_null(True)
    else:
        raise DataError(f"column {shown(column.name)}: labels must be 0 or 1, got {values.dtype}")
    if count := int(wrong.sum()):
        found = ", ".join(shown(value) for value in values.filter(wrong).unique(maintain_order=True).head(5))
        raise DataError(
            f"column {shown(column.name)}: labels must be 0 or 1, or empty for an event that is no sample, got "
            f"{found} in {count} rows, the first in {column.at(wrong)}"
        )
    return numbers.cast(pl.Float32)
