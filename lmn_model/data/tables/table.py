"""A table in memory, and where its rows stand in the file, for messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from lmn_model.data.schema import DataError
from lmn_model.data.tables.text_records import line_of
from lmn_model.wording import shown


class Column(NamedTuple):
    """A column to be checked.

    Args:
        values: its values, a Series without a name.
        name: its name in messages.
        place: where row ``r`` (from 0) stands, see ``Table.place``.
    """

    values: pl.Series
    name: str
    place: Callable[[int], str]

    @property
    def is_text(self) -> bool:
        """Whether the values are text, as such or as categories."""
        return self.values.dtype in (pl.String, pl.Categorical, pl.Enum)

    def at(self, rows: pl.Series) -> str:
        """Where the first row of a mask stands."""
        return self.place(rows.arg_max() or 0)

    def first(self, rows: pl.Series) -> str:
        """The value in the first row of a mask, quoted."""
        return shown(self.values[rows.arg_max() or 0])

    def refuse(self, rows: pl.Series, rule: str, advice: str = "") -> None:
        """Raise DataError with ``rule``, the first value of a mask and their number, unless the mask is all False."""
        if count := int(rows.sum()):
            raise DataError(
                f"column {shown(self.name)}: {self.at(rows)}: {rule}, got {self.first(rows)} "
                f"({count} of {len(rows)} rows){advice}"
            )


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of a table, and where they came from.

    Args:
        frame: the columns. Those of a text file are text, null where a field is empty.
        name: name of the table in messages, such as its path.
        untyped: whether all values are text because a text file has no types.
        text_file: the CSV or TSV file, so that messages can give its lines; None for other tables.
        header: names of all columns of the table, read or not; None if they are those of ``frame``.
    """

    frame: pl.DataFrame
    name: str = "events"
    untyped: bool = False
    text_file: Path | None = None
    header: tuple[str, ...] | None = None

    def column(self, name: str) -> Column:
        """One column, to be checked."""
        return Column(column_of(self.frame, name), name, self.place)

    def place(self, row: int) -> str:
        """Where row ``row`` (from 0) stands: ``"line 17"`` of a text file, else ``"row 16"``, counted from 1."""
        return f"row {row + 1}" if self.text_file is None else f"line {line_of(self.text_file, row)}"


def as_table(table: Table | pl.DataFrame, name: str = "events") -> Table:
    """The table itself, or a data frame as a table called ``name`` whose types are taken as they are."""
    return table if isinstance(table, Table) else Table(table, name)


def column_of(frame: pl.DataFrame, name: str) -> pl.Series:
    """A column without its name: some methods of a Series take a name such as ``*`` or ``^a.*$`` for a pattern."""
    return frame.get_column(name).alias("")
