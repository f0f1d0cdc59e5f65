"""Check a column of timestamps and read it as int64: datetimes, dates, integers, ISO text, or text of a given format.

Nothing is guessed: ``05/11/2020`` has two readings, so nothing but ISO 8601 is read without a format.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone

import polars as pl

from lmn_model.data.clocks import SINCE_1990, UNITS, UNTIL_2100, Clock, unit_of
from lmn_model.data.schema import DataError
from lmn_model.data.tables.table import Column
from lmn_model.wording import reason_of, shown

_NEEDED = {"a year": "YyGDFcxs+", "a month": "mbBhjDFcxs+", "a day": "dejDFcxs+"}
"""What a format must hold, and the directives that give it."""
_ISO_LOCAL = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
)
_ISO_ZONED = tuple(f"{time}%#z" for time in _ISO_LOCAL if "%H" in time)
_FIRST, _LAST = datetime(1000, 1, 1), datetime(9999, 12, 31)
"""Times outside are refused: "12-11-20" is a two-digit year in some order, not the year 12."""
_PER_SECOND = {"ms": 10**3, "us": 10**6, "ns": 10**9}


def check_times(column: Column, time_format: str | None = None) -> tuple[Clock, pl.Series]:
    """Times as int64, and their clock.

    Args:
        column: integers, dates, datetimes (without a zone in UTC), or text: ISO 8601, integers, or ``time_format``.
        time_format: see ``Schema``; it applies to text and integers.

    Returns:
        The clock, and int64: microseconds since 1970 in UTC of datetimes, the integers themselves otherwise.

    Raises:
        DataError: for null, types that are no time, text of another form, times with and without a zone in one column,
            and integers in more than one unit.
    """
    values, name = column.values, shown(column.name)
    if count := values.null_count():
        raise DataError(
            f"column {name}: timestamps must not be null or empty, got {count} such rows, "
            f"the first in {column.at(values.is_null())}"
        )
    if column.is_text or (values.dtype.is_integer() and time_format is not None):
        return _from_text(column._replace(values=values.cast(pl.String)), time_format)
    if values.dtype.is_integer():
        integers = values.cast(pl.Int64, strict=False)
        if count := integers.null_count():
            raise DataError(f"column {name}: timestamps must fit in 64 bits with a sign, {count} do not")
        return "integer", _of_one_unit(column, integers)
    if values.dtype in (pl.Date, pl.Datetime):
        return "datetime", _from_calendar(column)
    raise DataError(
        f"column {name}: timestamps must be datetimes, dates, integers or ISO text, "
        f"got {values.dtype} such as {shown(values[0])}"
    )


def _from_calendar(column: Column) -> pl.Series:
    """Dates or datetimes as microseconds; a cast would silently move those beyond the calendar of Python."""
    values, unit = column.values, getattr(column.values.dtype, "time_unit", "days")
    physical = values.to_physical().cast(pl.Int64)
    seconds = physical * 86_400 if unit == "days" else physical // _PER_SECOND[unit]
    first, last = (int(moment.replace(tzinfo=timezone.utc).timestamp()) for moment in (_FIRST, _LAST))
    wrong = (seconds < first) | (seconds > last)
    if wrong.any():
        raise DataError(
            f"column {shown(column.name)}: {column.at(wrong)}: timestamps must be in the years 1000 to 9999, got "
            f"{physical[wrong.arg_max() or 0]} {unit} since 1970"
        )
    times = values.cast(pl.Datetime("us")) if unit == "days" else values.dt.cast_time_unit("us")
    return times.to_physical()


def _from_text(column: Column, time_format: str | None) -> tuple[Clock, pl.Series]:
    text = column.values
    if time_format is not None:
        times = _parsed(text, _checked_format(time_format))
        column.refuse(times.is_null(), f"timestamps must have the format {time_format!r} of the training table")
        return "datetime", times.to_physical()
    integers = text.cast(pl.Int64, strict=False)
    if not integers.null_count():
        return "integer", _of_one_unit(column, integers)
    times = _in_any_format(text, _ISO_LOCAL)
    zoneless = times.is_not_null()
    if not zoneless.all():
        zoned = _in_any_format(text.filter(~zoneless), _ISO_ZONED)
        if zoneless.any() and not zoned.null_count():
            raise DataError(
                f"column {shown(column.name)}: {column.at(~zoneless)}: timestamps must all name a zone or none, but "
                f"{column.first(~zoneless)} does and {column.first(zoneless)} in {column.at(zoneless)} does not"
            )
        times = times.scatter((~zoneless).arg_true(), zoned)
    column.refuse(
        times.is_null(),
        "timestamps must be ISO 8601 (2024-01-31, 2024-01-31 12:30:00) or integers, unless training has a "
        "--time-format such as '%d/%m/%Y %H:%M'",
    )
    return "datetime", times.to_physical()


def _in_any_format(text: pl.Series, formats: tuple[str, ...]) -> pl.Series:
    """Datetimes of a text column in any of the formats, null where none fits."""
    times = _parsed(text, formats[0])
    for each in formats[1:]:
        rest = times.is_null()
        if not rest.any():
            break
        times = times.scatter(rest.arg_true(), _parsed(text.filter(rest), each))
    return times


def _parsed(text: pl.Series, time_format: str) -> pl.Series:
    """Datetimes in UTC, in microseconds, without a zone; null where the format or the year does not fit."""
    try:
        times = text.str.to_datetime(time_format, strict=False, time_unit="us")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"time_format: must be a format as in datetime.strptime, got {time_format!r}: {reason_of(error)}"
        ) from error
    times = times.dt.replace_time_zone(None)
    return times.scatter(((times < _FIRST) | (times > _LAST)).arg_true(), None)


def _checked_format(time_format: str) -> str:
    """A format of ``datetime.strptime`` in the notation of Polars, whose ``%f`` counts nanoseconds."""
    directives = set(re.findall(r"%[-_0]?(.)", time_format.replace("%%", "")))
    lacks = [name for name, any_of in _NEEDED.items() if not directives & set(any_of)]
    if lacks:
        raise DataError(f"time_format: must hold {', '.join(lacks)}, got {time_format!r}")
    if "Z" in directives:
        raise DataError(f"time_format: names of zones (%Z) are not read, only offsets (%z), got {time_format!r}")
    return time_format.replace(".%f", "%.f").replace("%f", "%6f")


def _of_one_unit(column: Column, times: pl.Series) -> pl.Series:
    """Integer times, refused where the earliest and the latest have different units and nothing lies between them."""
    if not len(times):
        return times
    first, last = times.arg_min() or 0, times.arg_max() or 0
    small, large = unit_of(times[first]), unit_of(times[last])
    if small is None or large is None or small == large:
        return times
    scale = UNITS[small]
    if times.is_between(UNTIL_2100 * scale, SINCE_1990 * scale * 1000, closed="none").any():
        return times  # a counter that passes through all sizes
    raise DataError(
        f"column {shown(column.name)}: timestamps must have one unit, but {times[first]} in {column.place(first)} "
        f"looks like {small} and {times[last]} in {column.place(last)} like {large}"
    )
