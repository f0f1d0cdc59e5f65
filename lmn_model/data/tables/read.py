"""Read a table: one CSV or TSV file, one parquet file, or many parquet files in a folder or by a pattern.

The columns that are wanted are checked against the header before a row is read.
"""

from __future__ import annotations

import glob
import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import polars as pl
import polars.selectors as cs

from lmn_model.data.schema import DataError
from lmn_model.data.tables.text_files import read_text
from lmn_model.data.tables.text_records import TEXT_SUFFIXES, check_columns, line_of, read_header
from lmn_model.wording import reason_of, shown

READABLE = (".parquet", *TEXT_SUFFIXES)


class Column(NamedTuple):
    """A column to be checked.

    Args:
        values: its values, a Series without a name.
        name: what messages call it.
        place: where a row, from 0, stands.
    """

    values: pl.Series
    name: str
    place: Callable[[int], str]

    def at(self, rows: pl.Series) -> str:
        """Where the first of the rows of a mask stands."""
        return self.place(rows.arg_max() or 0)

    def first(self, rows: pl.Series) -> str:
        """The value in the first of the rows of a mask, quoted."""
        return shown(self.values[rows.arg_max() or 0])


def column_of(frame: pl.DataFrame, name: str) -> pl.Series:
    """A column without its name: many methods of a Series read a name such as ``*`` or ``^a.*$`` as a pattern."""
    return frame.get_column(name).alias("")


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of a table, and where they came from.

    Args:
        frame: the columns. Those of a text file are text, null where a field is empty.
        name: what messages call the table, such as its path.
        untyped: whether the values are text because a text file has no types.
        text_file: the CSV or TSV file, whose lines messages name; None for other tables.
        header: names of all columns that the table has, those of ``frame`` and others; None for those of ``frame``.
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


def as_table(table: Table | pl.DataFrame) -> Table:
    """The table itself, or a data frame as one; its types are taken as meant."""
    return table if isinstance(table, Table) else Table(table)


def read_table(path: Path | str, columns: Collection[str] | None = None, optional: Collection[str] = ()) -> Table:
    """Read a table.

    Args:
        path: a ``.parquet``, ``.csv``, ``.tsv``, ``.csv.gz`` or ``.tsv.gz`` file; a folder of parquet files, whose
            subfolders may be Hive partitions (``day=2024-01-31``, a column of text); or a pattern such as
            ``data/*.parquet``.
        columns: those to read; None reads all.
        optional: further columns, read if there are any.

    Returns:
        The columns in the order of ``columns``, then of ``optional``; of many files one after the other, sorted by
        path. Every column of a CSV or TSV is text.

    Raises:
        DataError: if there is no such file, it cannot be read as what its suffix says, or a column is missing.
    """
    path = Path(path)
    try:
        if path.is_file():
            return _read_file(path, columns, optional)
        files = _parquet_files(path)
        return _read_parquet(files, str(path), columns, optional, _partitions(files, path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}") from error


def _read_file(path: Path, columns: Collection[str] | None, optional: Collection[str]) -> Table:
    name = path.name.lower()
    if not name.endswith(READABLE):
        raise DataError(f"{path}: a table must be one of {', '.join(READABLE)}")
    if name.endswith(".parquet"):
        return _read_parquet([path], str(path), columns, optional)
    header = read_header(path)
    wanted = _wanted(header, columns, optional, str(path))
    return Table(read_text(path, header, wanted), str(path), untyped=True, text_file=path, header=tuple(header))


def _wanted(header: list[str], columns: Collection[str] | None, optional: Collection[str], table: str) -> list[str]:
    check_columns(header, columns or (), table)
    if columns is None and len(set(header)) < len(header):
        raise DataError(f"{table}: line 1: must name every column, got several without a name")
    return header if columns is None else [*columns, *(name for name in optional if name in header)]


def _parquet_files(path: Path) -> list[Path]:
    """The parquet files in a folder or of a pattern, sorted."""
    if path.is_dir():
        files = [each for each in path.rglob("*.parquet") if each.is_file()]
        if not files:
            raise DataError(f"{path}: the folder holds no .parquet file")
    else:
        files = [Path(each) for each in glob.glob(str(path), recursive=True) if Path(each).is_file()]
        if not files:
            raise DataError(f"{path}: no such file")
        if other := [each for each in files if each.suffix.lower() != ".parquet"]:
            raise DataError(f"{path}: a pattern must name parquet files alone, got {other[0]}")
    shown_files = [each for each in files if not each.name.startswith((".", "_"))]  # such as those of Spark
    return sorted(shown_files or files)


def _read_parquet(
    files: list[Path],
    name: str,
    columns: Collection[str] | None,
    optional: Collection[str],
    partitions: Sequence[str] = (),
) -> Table:
    first = pl.scan_parquet(files[0], glob=False, hive_partitioning=False).collect_schema().names()
    header = [*first, *(each for each in partitions if each not in first)]
    wanted = _wanted(header, columns, optional, name)
    # Widths of integers may differ between the files.
    frame = pl.concat([_read_one(file, wanted, partitions) for file in files], how="vertical_relaxed")
    return Table(frame, name, header=tuple(header))


def _read_one(file: Path, wanted: Sequence[str], partitions: Sequence[str]) -> pl.DataFrame:
    """The wanted columns of one file; those of partitions have the value in its path."""
    scan = pl.scan_parquet(file, glob=False, hive_partitioning=False)
    held = [name for name in wanted if name not in partitions]
    check_columns(scan.collect_schema().names(), held, str(file))
    # A name is no pattern here, as it is in pl.col; without a column the rows still count.
    frame = scan.select(cs.by_name(*held) if held else cs.first()).collect()
    values = _partition_values(file)
    return pl.DataFrame(
        {
            name: pl.repeat(values[name], frame.height, dtype=pl.String, eager=True)
            if name in partitions
            else frame.get_column(name)
            for name in wanted
        }
    )


def _partition_values(file: Path) -> dict[str, str]:
    """Names and values of the Hive partitions in a path; the last of a name counts."""
    parts = [part.partition("=") for part in file.parts[:-1] if "=" in part]
    return {unquote(name): unquote(value) for name, _, value in parts}


def _partitions(files: list[Path], path: Path) -> list[str]:
    """Names of the Hive partitions below a folder or pattern; none if its files do not agree on them."""
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
    depth = len(path.parts) if path.is_dir() else len(list(fixed))
    names = [[unquote(part.split("=")[0]) for part in file.parts[depth:-1] if "=" in part] for file in files]
    return names[0] if all(each == names[0] for each in names) else []
