"""Times of a table as int64, without guessing: datetimes, ISO text, integers, or text of a format that is given.

Day and month cannot be told apart by looking at ``05/11/2020``, so nothing but ISO 8601 is read without a format.
Integers keep their unit, whatever it is; seconds, milliseconds and microseconds since 1970 are told apart by their
size, so that a later file in another unit is refused.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Literal

import polars as pl

from lmn_model.data.schema import DataError
from lmn_model.data.tables.table import Column
from lmn_model.wording import reason_of, shown

Clock = Literal["datetime", "integer"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
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
_UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
_SINCE_1990, _UNTIL_2100 = 631_152_000, 4_102_444_800
"""In seconds: integers in this range, or in that of another unit, are taken for times since 1970."""
_RATIO = 100
"""Times of another unit are larger or smaller by more than that."""


def check_times(column: Column, time_format: str | None = None) -> tuple[Clock, pl.Series]:
    """Times as int64 and what they were.

    Args:
        column: integers, dates, datetimes (without a zone in UTC), or text: ISO 8601, integers, or ``time_format``.
        time_format: see ``Schema``; it applies to text and integers.

    Returns:
        The clock, and int64: microseconds since 1970 in UTC of datetimes, the integers themselves otherwise.

    Raises:
        DataError: for null, types that are no time, text of another form, times with and without a zone in one column,
            and integers in more than one unit.
    """
    values = column.values
    if count := values.null_count():
        raise DataError(
            f"column {shown(column.name)}: timestamps must not be null or empty, got {count} such rows, "
            f"the first in {column.at(values.is_null())}"
        )
    if values.dtype in (pl.Categorical, pl.Enum) or (values.dtype.is_integer() and time_format is not None):
        column = column._replace(values=values.cast(pl.String))
    if column.values.dtype == pl.String:
        return _from_text(column, time_format)
    if values.dtype.is_integer():
        whole = values.cast(pl.Int64, strict=False)
        if count := whole.null_count():
            raise DataError(f"column {shown(column.name)}: timestamps must fit in 64 bits with a sign, {count} do not")
        return "integer", _of_one_unit(column, whole)
    if values.dtype in (pl.Date, pl.Datetime):
        return "datetime", _from_calendar(column)
    raise DataError(
        f"column {shown(column.name)}: timestamps must be datetimes, dates, integers or ISO text, "
        f"got {values.dtype} such as {shown(values[0])}"
    )


def _from_calendar(column: Column) -> pl.Series:
    """Dates or datetimes as microseconds; those beyond the calendar of Python, which casts would bend, are refused."""
    values = column.values
    physical, unit = values.to_physical().cast(pl.Int64), getattr(values.dtype, "time_unit", "days")
    seconds = physical * 86_400 if unit == "days" else physical // {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    wrong = (seconds < _seconds(_FIRST)) | (seconds > _seconds(_LAST))
    if wrong.any():
        raise DataError(
            f"column {shown(column.name)}: {column.at(wrong)}: timestamps must be in the years 1000 to 9999, got "
            f"{physical[wrong.arg_max() or 0]} {unit} since 1970"
        )
    return (
        values.cast(pl.Datetime("us")).to_physical() if unit == "days" else values.dt.cast_time_unit("us").to_physical()
    )


def _from_text(column: Column, time_format: str | None) -> tuple[Clock, pl.Series]:
    text = column.values
    if time_format is not None:
        times = _parsed(text, _checked_format(time_format))
        _refuse_unread(column, times, f"must have the format {time_format!r} of the training table")
        return "datetime", times.to_physical()
    whole = text.cast(pl.Int64, strict=False)
    if not whole.null_count():
        return "integer", _of_one_unit(column, whole)
    times = _iso(text, _ISO_LOCAL)
    if (local := len(text) - times.null_count()) < len(text):
        unread = times.is_null()
        zoned = _iso(text.filter(unread), _ISO_ZONED)
        if not zoned.null_count():
            if local:
                raise DataError(
                    f"column {shown(column.name)}: {column.at(unread)}: timestamps must all name a zone or none, but "
                    f"{column.first(unread)} does and {column.first(~unread)} in {column.at(~unread)} does not"
                )
            times = zoned
        else:
            times = times.scatter(unread.arg_true(), zoned)
    _refuse_unread(
        column,
        times,
        "must be ISO 8601 (2024-01-31, 2024-01-31 12:30:00) or integers, unless training has a --time-format such as "
        "'%d/%m/%Y %H:%M'",
    )
    return "datetime", times.to_physical()


def _iso(text: pl.Series, formats: tuple[str, ...]) -> pl.Series:
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


def _refuse_unread(column: Column, times: pl.Series, wanted: str) -> None:
    if not (count := times.null_count()):
        return
    unread = times.is_null()
    raise DataError(
        f"column {shown(column.name)}: {column.at(unread)}: timestamps {wanted}, got {column.first(unread)} "
        f"({count} of {len(times)} rows)"
    )


def _seconds(moment: datetime) -> int:
    return int(moment.replace(tzinfo=timezone.utc).timestamp())


def _checked_format(time_format: str) -> str:
    """A format of ``datetime.strptime`` in the words of Polars, whose ``%f`` counts nanoseconds."""
    directives = set(re.findall(r"%[-_0]?(.)", time_format.replace("%%", "")))
    lacks = [name for name, any_of in _NEEDED.items() if not directives & set(any_of)]
    if lacks:
        raise DataError(f"time_format: must hold {', '.join(lacks)}, got {time_format!r}")
    if "Z" in directives:
        raise DataError(f"time_format: names of zones (%Z) are not read, only offsets (%z), got {time_format!r}")
    return time_format.replace(".%f", "%.f").replace("%f", "%6f")


def unit_of(value: int) -> str | None:
    """The unit of an integer time between 1990 and 2100, by its size; None for a counter or another time."""
    for place, unit in enumerate(_UNITS):
        if _SINCE_1990 <= abs(value) / 1000**place < _UNTIL_2100:
            return unit
    return None


def _of_one_unit(column: Column, whole: pl.Series) -> pl.Series:
    if not len(whole):
        return whole
    early, late = whole.arg_min() or 0, whole.arg_max() or 0
    least, most = unit_of(whole[early]), unit_of(whole[late])
    if least is None or most is None or least == most:
        return whole
    scale = 1000 ** _UNITS.index(least)
    if whole.is_between(_UNTIL_2100 * scale, _SINCE_1990 * scale * 1000, closed="none").any():
        return whole  # a counter that passes through all sizes
    raise DataError(
        f"column {shown(column.name)}: timestamps must have one unit, but {whole[early]} in {column.place(early)} "
        f"looks like {least} and {whole[late]} in {column.place(late)} like {most}"
    )


def check_unit(last: int, known: tuple[int, int] | None, name: str) -> None:
    """Raise DataError if integer times have another unit than those of the training split.

    Args:
        last: the last of them.
        known: first and last time of the training split; None if the run did not keep them.
        name: of the column.
    """
    if known is None:
        return
    run, here = unit_of(known[1]), unit_of(last)
    ratio = max(abs(last), 1) / max(abs(known[1]), 1)
    if run != here and max(ratio, 1 / ratio) > _RATIO:
        names = {None: "small integers, such as a counter"}
        raise DataError(
            f"column {shown(name)}: timestamps must have the unit of the run's, {names.get(run, run)} such as "
            f"{known[1]}, got {names.get(here, here)} such as {last}"
        )


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


def time_in_words(value: int, clock: Clock) -> str:
    """A moment for a log: ISO text; of an integer that looks like a time since 1970 both."""
    unit = unit_of(value) if clock == "integer" else None
    if unit is None:
        return str(format_time(value, clock))
    scale = {"seconds": 10**6, "milliseconds": 10**3, "microseconds": 1, "nanoseconds": 1e-3}[unit]
    try:
        return f"{value} ({format_time(int(value * scale), 'datetime')} if these are {unit})"
    except OverflowError:
        return str(value)
