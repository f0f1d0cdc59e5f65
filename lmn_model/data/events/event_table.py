"""An event table with every column checked.

All mistakes that a table can hold are found here, once, before any time is spent. The result has few types, so that the
rest of the package neither checks nor converts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.clocks import Clock
from lmn_model.data.events.checks import check_feature, check_ids, check_labels
from lmn_model.data.events.kinds import Kind, kinds_of
from lmn_model.data.events.times import check_times
from lmn_model.data.schema import DataError, Schema
from lmn_model.data.tables.header import check_columns
from lmn_model.data.tables.table import Table, column_of


@dataclass(frozen=True, eq=False)
class Events:
    """A checked event table in the order of time; rows of one timestamp keep the order of the file.

    Args:
        frame: user and item as text, timestamp as int64, label as float32 (null: history only), features as text or
            float64, under the names of the schema.
        clock: clock of the timestamps.
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
        table: the table; columns outside the schema are dropped.
        schema: names of the columns.
        kinds: kinds of the feature columns in training; None decides them from this table.

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
            columns[schema.label] = check_labels(table.column(schema.label))
            labelled = columns[schema.label].is_not_null()
        kinds = kinds_of(table, schema) if kinds is None else kinds
        for name in schema.features:
            checked = labelled if name in schema.context_features else None
            columns[name] = check_feature(
                table.column(name), kinds[name], missing=schema.missing_numbers, checked_rows=checked
            )
    except DataError as error:
        raise DataError(f"{table.name}: {error}") from error
    order = np.argsort(times.to_numpy(), kind="stable")
    return Events(frame=pl.DataFrame(columns)[order], clock=clock, kinds=dict(kinds))
