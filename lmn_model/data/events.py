"""Read an event table and check every column that training will use.

All the mistakes a table can hold are found here, once, before any time is spent. What comes out has few types: ids and
categories are text, numbers are float64, times are int64 and labels float32, so that the rest of the package neither
checks nor converts. Ids become text because 17 in a parquet file and "17" in a CSV are the same user.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.schema import DataError, Schema

Kind = Literal["categorical", "numeric"]
Clock = Literal["datetime", "integer"]

_READABLE = (".parquet", ".csv", ".tsv", ".csv.gz", ".tsv.gz")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


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
        return self.frame[schema.timestamp].to_numpy()

    def samples(self, schema: Schema) -> NDArray[np.bool_]:
        """Which events are samples, bool [E]: all, or those with a label."""
        if schema.label is None:
            return np.ones(self.frame.height, dtype=np.bool_)
        return self.frame[schema.label].is_not_null().to_numpy()


def read_table(path: Path | str, text_columns: Collection[str] = ()) -> pl.DataFrame:
    """Read a parquet, CSV or TSV file, by its suffix; a CSV or TSV may be gzipped.

    Args:
        path: the file.
        text_columns: columns of a CSV that stay text whatever they look like, so that an id keeps its leading zeros.

    Raises:
        DataError: if the file is missing, has another suffix or cannot be read as what its suffix says.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    name = path.name.lower()
    if not name.endswith(_READABLE):
        raise DataError(f"{path}: a table must be one of {', '.join(_READABLE)}")
    try:
        if name.endswith(".parquet"):
            return pl.read_parquet(path)
        separator = "\t" if ".tsv" in name else ","
        header = pl.read_csv(path, separator=separator, n_rows=0).columns
        return pl.read_csv(
            path,
            separator=separator,
            try_parse_dates=True,
            infer_schema_length=None,
            schema_overrides={column: pl.String for column in text_columns if column in header},
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: cannot be read: {_first_line(error)}") from error


def check_columns(frame: pl.DataFrame, columns: Collection[str], table: str = "events") -> None:
    """Raise DataError if the table is empty or lacks a column, and list the columns that it has."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        names = ", ".join(repr(column) for column in missing)
        raise DataError(f"{table}: no column {names}; the columns are {', '.join(frame.columns)}")
    if frame.is_empty():
        raise DataError(f"{table}: the table is empty")


def check_events(frame: pl.DataFrame, schema: Schema, kinds: Mapping[str, Kind] | None = None) -> Events:
    """Check an event table and bring it to few types and the order of time.

    Args:
        frame: the table; columns that the schema does not name are left out.
        schema: names of the columns.
        kinds: kinds of the feature columns as training saw them; None takes them from the types of the columns.

    Raises:
        DataError: if the table is empty or lacks a column; if an id or a timestamp is null or has another type; if a
            label is neither 0, 1 nor null; if a numeric feature holds null, NaN or an infinity (a context feature may
            where the event has no label); if a feature column cannot have its kind.
    """
    check_columns(frame, schema.columns)
    clock, times = check_times(frame[schema.timestamp])
    columns = [check_ids(frame[schema.user]), check_ids(frame[schema.item]), times]
    labelled = None
    if schema.label is not None:
        columns.append(check_labels(frame[schema.label]))
        labelled = columns[-1].is_not_null()
    found: dict[str, Kind] = {}
    for name in schema.features:
        checked_rows = labelled if name in schema.context_features else None
        column, found[name] = check_feature(frame[name], None if kinds is None else kinds[name], checked_rows)
        columns.append(column)
    ordered = pl.DataFrame(columns).sort(schema.timestamp, maintain_order=True)
    return Events(frame=ordered, clock=clock, kinds=found)


def check_ids(column: pl.Series) -> pl.Series:
    """Ids as text. Raises DataError for null and for types other than text and integer."""
    if not (column.dtype.is_integer() or column.dtype in (pl.String, pl.Categorical, pl.Enum)):
        raise DataError(f"column {column.name!r}: ids must be text or integers, got {column.dtype}")
    _refuse_nulls(column, "ids")
    return column.cast(pl.String)


def check_times(column: pl.Series) -> tuple[Clock, pl.Series]:
    """Times as int64 and what they were. Raises DataError for null and for types that are no time."""
    _refuse_nulls(column, "timestamps")
    if column.dtype.is_integer():
        whole = column.cast(pl.Int64, strict=False)
        if count := whole.null_count():
            raise DataError(f"column {column.name!r}: timestamps must fit in 64 bits with a sign, {count} do not")
        return "integer", whole
    if column.dtype == pl.Date:
        return "datetime", column.cast(pl.Datetime("us")).to_physical()
    if column.dtype == pl.Datetime:
        return "datetime", column.dt.cast_time_unit("us").to_physical()
    raise DataError(
        f"column {column.name!r}: timestamps must be datetimes, dates, integers or ISO text in a CSV, "
        f"got {column.dtype} such as {_first_without_time(column)!r}"
    )


def _first_without_time(column: pl.Series) -> object:
    """The first value that does not read as a time; the first of all where the type is the mistake."""
    if column.dtype != pl.String:
        return column[0]
    try:
        times = column.str.to_datetime(strict=False)  # in the format of the first value
    except pl.exceptions.PolarsError:
        return column[0]
    wrong = column.filter(times.is_null())
    return wrong[0] if len(wrong) else column[0]


def check_labels(column: pl.Series) -> pl.Series:
    """Labels as float32, null where the event is history only. Raises DataError for any value but 0, 1 and null."""
    dtype = column.dtype
    if not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        raise DataError(f"column {column.name!r}: labels must be 0 or 1, got {dtype}")
    numbers = column.cast(pl.Float64)
    wrong = numbers.filter(~numbers.is_in([0.0, 1.0])).unique().sort()
    if len(wrong):
        shown = ", ".join(f"{value:g}" for value in wrong.head(5))
        raise DataError(
            f"column {column.name!r}: labels must be 0 or 1, got {shown}{', ...' if len(wrong) > 5 else ''}"
        )
    return numbers.cast(pl.Float32)


def check_feature(
    column: pl.Series, kind: Kind | None, checked_rows: pl.Series | None = None
) -> tuple[pl.Series, Kind]:
    """A feature as text or float64, and its kind.

    Args:
        column: the values.
        kind: the kind it must have, or None for what its type says: float and decimal are numeric.
        checked_rows: bool mask of the rows that must be finite where the feature is numeric; None for all.

    Raises:
        DataError: if the column cannot have this kind, or a checked number is null, NaN or infinite.
    """
    name, dtype = column.name, column.dtype
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        raise DataError(f"column {name!r}: a feature must be text, a number, a boolean or a date, got {dtype}")
    fractional = dtype.is_float() or dtype.is_decimal()
    if kind is None:
        kind = "numeric" if fractional else "categorical"
    if kind == "categorical":
        if fractional:
            raise DataError(f"column {name!r}: it was categorical in training and is {dtype} here")
        return column.cast(pl.String), kind
    if not (dtype.is_numeric() or dtype == pl.Null):
        raise DataError(f"column {name!r}: it was numeric in training and is {dtype} here")
    numbers = column.cast(pl.Float64)
    wrong = ~numbers.is_finite().fill_null(False)
    count = int((wrong if checked_rows is None else wrong & checked_rows).sum())
    if count:
        raise DataError(f"column {name!r}: a numeric feature must be finite, got NaN, null or infinity in {count} rows")
    return numbers, kind


def parse_time(value: str | int, clock: Clock, name: str) -> int:
    """A moment from the settings on the clock of the table.

    Args:
        value: ISO text such as ``"2022-05-01"`` or ``"2022-05-01T12:00:00"`` (UTC unless it names its zone) for a table
            with datetimes; an integer, as a number or as text, for a table with integers.
        clock: the clock of the table.
        name: the setting, for the message.

    Raises:
        DataError: if the value does not fit the clock.
    """
    if clock == "integer":
        try:
            return int(value)
        except ValueError:
            raise DataError(f"{name}: the timestamps are integers, so it must be an integer, got {value!r}") from None
    try:
        if not isinstance(value, str):
            raise ValueError
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        message = f"{name}: the timestamps are datetimes, so it must be ISO text such as 2022-05-01, got {value!r}"
        raise DataError(message) from None
    zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
    return (zoned - _EPOCH) // timedelta(microseconds=1)


def format_time(value: int, clock: Clock) -> str | int:
    """A moment for people: ISO text, or the integer that it is."""
    if clock == "integer":
        return value
    return (_EPOCH + timedelta(microseconds=value)).replace(tzinfo=None).isoformat()


def _refuse_nulls(column: pl.Series, what: str) -> None:
    if count := column.null_count():
        raise DataError(f"column {column.name!r}: {what} must not be null, got null in {count} rows")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
