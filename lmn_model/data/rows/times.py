"""The times of prepared rows: of samples, of the events in histories, and what they must fulfil together.

With times the samples and events of all users lie on one clock, so that a memory can be written in their order. Every
rule here keeps the future out of a sample: what a window holds and what an earlier split wrote must come before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmn_model.data.clocks import Clock, format_time, same_unit, time_in_words
from lmn_model.data.histories import Histories
from lmn_model.data.schema import DataError

TIME, TIMES = "timestamp", "full_time_seq"
"""Column of the samples' times, and of the lists of events' times."""


@dataclass(frozen=True, eq=False)
class RowTimes:
    """A column of times.

    Args:
        path: the file, for messages.
        column: its name.
        values: int64 [S] or [E]; microseconds since 1970 in UTC of datetimes, integers as they are; None if the file
            has no such column.
        clock: of the values.
    """

    path: Path
    column: str
    values: NDArray[np.int64] | None = None
    clock: Clock = "integer"

    def error(self, rule: str) -> DataError:
        """A DataError about the column."""
        return DataError(f"{self.path}: column {self.column!r}: {rule}")

    def in_words(self, row: int) -> str:
        """A time for a message."""
        return "none" if self.values is None else str(format_time(int(self.values[row]), self.clock))


def common_clock(files: Sequence[RowTimes]) -> Clock | None:
    """The clock that all files share; None if no file has times.

    Raises:
        DataError: if some have times and others none, or they have two clocks or two units.
    """
    timed = [each for each in files if each.values is not None]
    if not timed:
        return None
    for each in files:
        if each.values is None:
            raise DataError(
                f"{each.path}: no column {each.column!r}, but {timed[0].path} has {timed[0].column!r}: "
                "all files of prepared rows have times, or none has"
            )
    filled = [each for each in timed if each.values is not None and len(each.values)]
    for each in filled[1:]:
        if each.clock != filled[0].clock:
            raise each.error(f"it must be {filled[0].clock}s as in {filled[0].path}, got {each.clock}s")
        ours, first = (int(file.values.max()) for file in (each, filled[0]) if file.values is not None)
        if each.clock == "integer" and not same_unit(ours, first):
            here, there = time_in_words(ours, "integer"), time_in_words(first, "integer")
            raise each.error(f"it must have the unit of {filled[0].path}, {there}, got {here}")
    return filled[0].clock


def refuse_decreasing(times: RowTimes, starts: NDArray[np.int64]) -> None:
    """Raise DataError unless the times of each list, which begin at ``starts``, int64 [U + 1], never decrease."""
    if times.values is None:
        return
    back = np.append(False, times.values[1:] < times.values[:-1])
    back[starts[starts < len(back)]] = False
    if back.any():
        place = int(back.argmax())
        user = int(np.searchsorted(starts, place, "right")) - 1
        raise times.error(
            f"it must never decrease within a list, got {times.in_words(place)} after {times.in_words(place - 1)} "
            f"(the first at {user})"
        )


def refuse_future(
    samples: RowTimes, users: NDArray[np.int64], lengths: NDArray[np.int64], histories: Histories
) -> None:
    """Raise DataError unless the first ``lengths`` events of each sample's user are strictly before the sample.

    Args:
        samples: S times.
        users: int64 [S].
        lengths: int64 [S].
        histories: with times.
    """
    if samples.values is None:
        return
    rows = np.flatnonzero(lengths > 0)
    newest = histories.times[histories.starts[users[rows]] + lengths[rows] - 1]
    late = newest >= samples.values[rows]
    if late.any():
        row, event = int(rows[late.argmax()]), int(newest[late.argmax()])
        raise samples.error(
            f"it must be after the first seq_len = {lengths[row]} events of user_index {users[row]}, got "
            f"{samples.in_words(row)} and an event at {format_time(event, samples.clock)} (the first at {row})"
        )


def refuse_overlapping_times(splits: Sequence[RowTimes]) -> None:
    """Raise DataError unless all samples of a split are after those of the splits before it.

    A memory holds the events until the last sample of a split, its moment included, when the next split begins.
    """
    last: int | None = None
    for each in splits:
        if each.values is None:
            return
        early = np.zeros(len(each.values), dtype=np.bool_) if last is None else each.values <= last
        if last is not None and early.any():
            row = int(early.argmax())
            raise each.error(
                f"it must be after the last sample of the earlier split, at {format_time(last, each.clock)}, got "
                f"{each.in_words(row)} (the first at {row})"
            )
        last = int(each.values.max())
