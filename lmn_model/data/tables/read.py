"""Read a table: one CSV or TSV file, one parquet file, or many parquet files in a folder or by a pattern.

The wanted columns are checked against the header before a row is read.
"""

from __future__ import annotations

import glob
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import unquote

import polars as pl
import polars.selectors as cs

from lmn_model.data.schema import DataError
from lmn_model.data.tables.header import TEXT_SUFFIXES, check_columns, read_header
from lmn_model.data.tables.table import Table
from lmn_model.data.tables.text_files import read_text
from lmn_model.wording import reason_of

READABLE = (".parquet", *TEXT_SUFFIXES)


def read_table(path: Path | str, columns: Collection[str] | None = None, optional: Collection[str] = ()) -> Table:
    """Read a table.

    Args:
        path: a ``.parquet``, ``.csv``, ``.tsv``, ``.csv.gz`` or ``.tsv.gz`` file; a folder of parquet files, whose
            subfolders may be Hive partitions (``day=2024-01-31``, a column of text); or a pattern such as
            ``data/*.parquet``.
        columns: those to read; None reads all.
        optional: further columns, read where the table has them.

    Returns:
        The columns in the order of ``columns``, then of ``optional``. The rows of many files follow each other, sorted
        by path. Every column of a CSV or TSV is text.

    Raises:
        DataError: if there is no such file, it cannot be read as its suffix says, or a column is missing.
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
    visible = [each for each in files if not each.name.startswith((".", "_"))]  # Spark writes hidden ones
    return sorted(visible or files)


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


def _read_one(file: Path, wanted: list[str], partitions: Sequence[str]) -> pl.DataFrame:
    """The wanted columns of one file; those of partitions have the value in its path."""
    scan = pl.scan_parquet(file, glob=False, hive_partitioning=False)
    stored = [name for name in wanted if name not in partitions]
    check_columns(scan.collect_schema().names(), stored, str(file))
    # cs.by_name takes no name for a pattern, as pl.col does. Without a stored column the number of rows still counts.
    frame = scan.select(cs.by_name(*stored) if stored else cs.first()).collect()
    values = _partition_values(file)
    added = [pl.lit(values[name], dtype=pl.String).alias(name) for name in wanted if name in partitions]
    return frame.with_columns(added)[wanted]


def _partition_values(file: Path) -> dict[str, str]:
    """Names and values of the Hive partitions in a path; of two with one name the last counts."""
    parts = [part.partition("=") for part in file.parts[:-1] if "=" in part]
    return {unquote(name): unquote(value) for name, _, value in parts}


def _partitions(files: list[Path], path: Path) -> list[str]:
    """Names of the Hive partitions below a folder or pattern; none unless all files have the same."""
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
    depth = len(path.parts) if path.is_dir() else len(list(fixed))
    names = [[unquote(part.split("=")[0]) for part in file.parts[depth:-1] if "=" in part] for file in files]
    return names[0] if all(each == names[0] for each in names) else []
