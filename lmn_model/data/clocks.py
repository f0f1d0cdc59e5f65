"""Moments as integers: which clock they are of, their unit, and from and to the text that people write.

Integer timestamps keep their unit, whatever it is. Seconds, milliseconds and microseconds since 1970 differ in size,
so that a later file in another unit is refused.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Literal

from lmn_model.data.schema import DataError
from lmn_model.wording import shown

Clock = Literal["datetime", "integer"]
"""Datetimes are microseconds since 1970 in UTC; integers have the unit of their table."""

UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
SINCE_1990, UNTIL_2100 = 631_152_000, 4_102_444_800
"""In seconds: an integer in this range, in some unit, is taken for a time since 1970."""
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_RATIO = 100
"""Times of two units differ by a larger factor."""


def unit_of(value: int) -> str | None:
    """The unit of an integer time between 1990 and 2100, by its size; None for a counter or another time."""
    return next((unit for unit, scale in UNITS.items() if SINCE_1990 <= abs(value) / scale < UNTIL_2100), None)


def same_unit(first: int, second: int) -> bool:
    """Whether two integer times may have one unit: their sizes have it, or do not differ much."""
    ratio = max(abs(first), 1) / max(abs(second), 1)
    return unit_of(first) == unit_of(second) or max(ratio, 1 / ratio) <= _RATIO


def check_unit(last: int, known: tuple[int, int] | None, name: str) -> None:
    """Raise DataError if integer times have another unit than those of the training split.

    Args:
        last: the last of them.
        known: first and last time of the training split; None if the run did not save them.
        name: of the column.
    """
    if known is None:
        return
    if not same_unit(last, known[1]):
        run, here = unit_of(known[1]), unit_of(last)
        counter = "small integers, such as a counter"
        raise DataError(
            f"column {shown(name)}: timestamps must have the unit of the run's, {run or counter} such as "
            f"{known[1]}, got {here or counter} such as {last}"
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
    """A moment as ISO text, or the integer itself."""
    if clock == "integer":
        return value
    return (_EPOCH + timedelta(microseconds=value)).replace(tzinfo=None).isoformat()


def time_in_words(value: int, clock: Clock) -> str:
    """A moment for a log: ISO text; both for an integer whose size is that of a time since 1970."""
    unit = unit_of(value) if clock == "integer" else None
    if unit is None:
        return str(format_time(value, clock))
    try:
        return f"{value} ({format_time(value * 10**6 // UNITS[unit], 'datetime')} if these are {unit})"
    except OverflowError:
        return str(value)
