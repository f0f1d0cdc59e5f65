"""Read columns of a CSV or TSV file as the text that the file holds.

Types are never inferred here: ``07001`` and ``1.10`` stay what they are, and a column that nobody names is not even
decoded. Arrow parses the file in blocks, so that progress is shown and Ctrl-C acts between two of them. It refuses a
row with more or fewer fields than the header; which line that is, a second and slower reading finds.
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.csv

from lmn_model.data.schema import DataError
from lmn_model.wording import shown

BLOCK_BYTES = 1 << 24
"""Bytes that Arrow parses at once; a record must fit."""
HEADER_BYTES = 1 << 20
"""A header that is longer belongs to a file without line ends, or to none."""
PROGRESS_SECONDS = 2.0

logger = logging.getLogger("lmn")


def separator_of(path: Path) -> str:
    """A tab for ``.tsv`` and ``.tsv.gz``, a comma otherwise."""
    return "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","


def read_header(path: Path) -> list[str]:
    """The column names of the first line.

    Raises:
        DataError: if the file is empty, is no UTF-8 text, or names a column twice.
        OSError: if it cannot be opened.
    """
    with _open(path) as file:
        head = file.read(HEADER_BYTES)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise DataError(f"{path}: line 1: must be UTF-8 text, got UTF-16 or a binary file; save it as UTF-8")
    try:
        # An incomplete character may stand at the end of what was read, far behind the header.
        text = head.decode("utf-8-sig", errors="strict" if len(head) < HEADER_BYTES else "ignore")
    except UnicodeDecodeError as error:
        if b"\n" not in head[: error.start]:
            raise DataError(f"{path}: line 1: must be UTF-8 text, got {error.object[error.start :][:1]!r}") from None
        text = head[: error.start].decode("utf-8-sig")
    header: list[str] = []
    for header in _records(io.StringIO(text, newline=""), separator_of(path)):  # noqa: B007
        break
    if not header:
        raise DataError(f"{path}: the file is empty; it must begin with a line of column names")
    seen: set[str] = set()
    for name in header:
        if name and name in seen:
            raise DataError(f"{path}: line 1: names the column {shown(name)} twice; rename one of them")
        seen.add(name)
    return header


def read_text(path: Path, header: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
    """The named columns as text, null where a field is empty; blank lines are no rows.

    Args:
        path: the file.
        header: its column names, from :func:`read_header`.
        columns: those that are wanted.

    Raises:
        DataError: if a row has more or fewer fields than the header, or a wanted value is not UTF-8.
        OSError: if the file cannot be read.
    """
    convert = pa.csv.ConvertOptions(
        column_types={name: pa.large_string() for name in columns},
        include_columns=list(columns),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )
    parse = pa.csv.ParseOptions(delimiter=separator_of(path), newlines_in_values=True)
    read = pa.csv.ReadOptions(block_size=BLOCK_BYTES)
    batches: list[pa.RecordBatch] = []
    logged = time.monotonic()
    try:
        with (
            path.open("rb") as raw,
            pa.input_stream(raw, compression=_compression(path)) as stream,
            pa.csv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert) as reader,
        ):
            rows, schema = 0, reader.schema
            for batch in reader:
                batches.append(batch)
                rows += batch.num_rows
                if time.monotonic() - logged >= PROGRESS_SECONDS:
                    logged = time.monotonic()
                    logger.info("reading %s: %s rows", path, f"{rows:,}")
    except pa.ArrowInvalid as error:
        raise DataError(_diagnosis(path, header, columns) or f"{path}: cannot be read: {_short(str(error))}") from error
    table = pa.Table.from_batches(batches, schema)
    return pl.DataFrame({name: pl.from_arrow(table.column(name)) for name in columns})


def line_of(path: Path, row: int) -> int:
    """The line on which row ``row`` (from 0) of the file begins, as an editor counts them."""
    with _open(path) as file:
        records = _records(io.TextIOWrapper(file, encoding="latin-1", newline=""), separator_of(path))
        for number, _ in enumerate(records):
            if number == row:  # the header is a record too, so that this is the one before
                break
        return records.line_num + 1


def raw_records(path: Path) -> tuple[bytes, list[bytes]]:
    """The header and the rows byte for byte, each with its end of line; blank lines are left out.

    Raises:
        OSError: if the file cannot be read.
    """
    with _open(path) as file:
        lines = file.read().splitlines(keepends=True)
    if not any(b'"' in line for line in lines):
        records = [line for line in lines if line.strip(b"\r\n")]
        return records[0], records[1:]
    found: list[bytes] = []
    first = 0
    reader = _records((line.decode("latin-1") for line in lines), separator_of(path))
    for _ in reader:
        found.append(b"".join(lines[first : reader.line_num]).lstrip(b"\r\n"))
        first = reader.line_num
    return found[0], found[1:]


def append_column(file: BinaryIO, source: Path, name: str, values: Sequence[str]) -> None:
    """Copy a text file byte for byte, with one more field at the end of each row; blank lines are left out.

    Args:
        file: to write.
        source: the file to copy.
        name: of the new column; neither it nor a value needs quotes.
        values: one for each row.

    Raises:
        DataError: if the file has another number of rows.
        OSError: if one cannot be read or the other not be written.
    """
    separator = separator_of(source).encode()
    header, rows = raw_records(source)
    if len(rows) != len(values):
        raise DataError(f"{source}: has {len(rows)} rows and had {len(values)} before; it changed while it was read")
    for record, value in zip((header, *rows), (name, *values), strict=True):
        fields = record.rstrip(b"\r\n")
        file.write(fields + separator + value.encode() + (record[len(fields) :] or b"\n"))


class _Records:
    """The records of a CSV file that are not blank, and the line at which the last one ended."""

    def __init__(self, lines: Iterator[str] | io.TextIOBase, separator: str) -> None:
        csv.field_size_limit(BLOCK_BYTES)
        self._reader = csv.reader(lines, delimiter=separator)
        self.first_line = 1

    @property
    def line_num(self) -> int:
        return self._reader.line_num

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        while True:
            self.first_line = self._reader.line_num + 1
            if record := next(self._reader):
                return record


def _records(lines: Iterator[str] | io.TextIOBase, separator: str) -> _Records:
    return _Records(lines, separator)


def _diagnosis(path: Path, header: Sequence[str], columns: Sequence[str]) -> str | None:
    """What is wrong with the first bad record, by line and column; None if none is found."""
    wanted = [(place, name) for place, name in enumerate(header) if name in columns]
    with _open(path) as file:
        records = _records(io.TextIOWrapper(file, encoding="latin-1", newline=""), separator_of(path))
        try:
            for record in records:
                if len(record) != len(header):
                    text = separator_of(path).join(record).encode("latin-1").decode("utf-8", errors="replace")
                    span = records.line_num - records.first_line
                    quote = f"; it runs over {span + 1} lines: is a quote not closed?" if span else ""
                    return (
                        f"{path}: line {records.first_line}: must have {len(header)} fields like the header, "
                        f"got {len(record)}: {_short(repr(text))}{quote}"
                    )
                for place, name in wanted:
                    try:
                        record[place].encode("latin-1").decode("utf-8")
                    except UnicodeDecodeError as error:
                        return (
                            f"{path}: line {records.first_line}, column {shown(name)}: must be UTF-8 text, "
                            f"got the byte 0x{error.object[error.start]:02x}; save the file as UTF-8"
                        )
        except csv.Error as error:
            return f"{path}: line {records.first_line}: cannot be read: {error}; is a quote not closed?"
    return None


def _open(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if _compression(path) else path.open("rb")  # type: ignore[return-value]


def _compression(path: Path) -> str | None:
    return "gzip" if path.name.lower().endswith(".gz") else None


def _short(text: str, most: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]} ..."
