"""Records of a CSV or TSV file with the standard library alone: the header, lines for messages, bytes to copy.

Reading rows is the business of :mod:`lmn_model.data.tables.text_files`. This module loads in no time, so that the
command checks a header before torch is loaded.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from lmn_model.data.schema import DataError
from lmn_model.wording import did_you_mean, shown, shown_names

TEXT_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
HEADER_BYTES = 1 << 20
"""A header that is longer belongs to a file without line ends, or to none."""
FIELD_BYTES = 1 << 24
"""A field must fit."""


def separator_of(path: Path) -> str:
    """A tab for ``.tsv`` and ``.tsv.gz``, a comma otherwise."""
    return "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","


def read_header(path: Path) -> list[str]:
    """The column names of the first line.

    Raises:
        DataError: if the file is empty, is no UTF-8 text, or names a column twice.
        OSError: if it cannot be opened.
    """
    try:
        with _open(path) as file:
            head = file.read(HEADER_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: must be a gzip file, as its name says: {error}") from None
    first = head.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n").splitlines(keepends=True)[:1]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in b"".join(first):
        raise DataError(f"{path}: line 1: must be UTF-8 text, got UTF-16 or a binary file; save it as UTF-8")
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\n" not in head[: error.start] and b"\r" not in head[: error.start]:
            found = error.object[error.start : error.start + 1]
            raise DataError(f"{path}: line 1: must be UTF-8 text, got {found!r}; save the file as UTF-8") from None
        text = head[: error.start].decode("utf-8-sig")
    try:
        header = next(_Records(io.StringIO(text, newline=""), separator_of(path)), [])
    except csv.Error as error:
        raise DataError(f"{path}: line 1: cannot be read: {error}") from None
    if not header:
        raise DataError(f"{path}: the file is empty; it must begin with a line of column names")
    seen: set[str] = set()
    for name in header:
        if name and name in seen:
            raise DataError(
                f"{path}: line 1: names the column {shown(name)} twice; rename one of them, or put a line of column "
                "names first if this one holds values"
            )
        seen.add(name)
    return header


def check_columns(names: Sequence[str], wanted: Collection[str], table: str) -> None:
    """Raise DataError if a column is missing, and name those that there are."""
    missing = [name for name in wanted if name not in names]
    if not missing:
        return
    advice = _advice(names, missing, wanted)
    raise DataError(f"{table}: no column {shown_names(missing)}; the columns are {shown_names(names)}{advice}")


def _advice(names: Sequence[str], missing: Sequence[str], wanted: Collection[str]) -> str:
    """What may be wrong with a header that lacks columns."""
    others = ("::", *((";", "|", "\t", " ") if len(names) == 1 else ()))
    separator = next((each for each in others if names and each in names[0]), None)
    if separator is not None:
        return f"; its fields seem to be separated by {separator!r}, but a .csv has commas and a .tsv tabs"
    if len(missing) > 1 and names and all(name.strip()[:1].isdigit() for name in names):
        return "; the first line must hold the names of the columns, and it looks like values"
    return did_you_mean(missing[0], [name for name in names if name not in wanted]) if len(missing) == 1 else ""


def line_of(path: Path, row: int) -> int:
    """The line on which row ``row`` (from 0) of the file begins, as an editor counts them."""
    with _open(path) as file:
        records = _Records(io.TextIOWrapper(file, encoding="latin-1", newline=""), separator_of(path))
        for number, _ in enumerate(records):
            if number == row + 1:  # the header is a record too
                return records.first_line
    raise DataError(f"{path}: has no row {row + 1} any more; it changed while it was read")


def raw_records(path: Path) -> tuple[bytes, list[bytes]]:
    """The header and the rows byte for byte, each with its end of line; blank lines are left out.

    Raises:
        OSError: if the file cannot be read.
    """
    with _open(path) as file:
        content = file.read()
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""
    lines = content.removeprefix(mark).splitlines(keepends=True)
    if not any(b'"' in line for line in lines):
        records = [line for line in lines if line.strip(b"\r\n")]
        return mark + records[0], records[1:]
    found: list[bytes] = []
    first = 0
    reader = _Records((line.decode("latin-1") for line in lines), separator_of(path))
    for _ in reader:
        found.append(b"".join(lines[first : reader.line_num]).lstrip(b"\r\n"))
        first = reader.line_num
    return mark + found[0], found[1:]


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
        csv.field_size_limit(FIELD_BYTES)
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


def diagnosis_of(path: Path, header: Sequence[str], columns: Sequence[str]) -> str | None:
    """What is wrong with the first bad record, by line and column; None if none is found."""
    wanted = [(place, name) for place, name in enumerate(header) if name in columns]
    with _open(path) as file:
        records = _Records(io.TextIOWrapper(file, encoding="latin-1", newline=""), separator_of(path))
        try:
            for record in records:
                if len(record) != len(header):
                    text = separator_of(path).join(record).encode("latin-1").decode("utf-8", errors="replace")
                    span = records.line_num - records.first_line
                    quote = f" a quote may not be closed (the row runs over {span + 1} lines);" if span else ""
                    return (
                        f"{path}: line {records.first_line}:{quote} must have {len(header)} fields like the header, "
                        f"got {len(record)}: {shortened(repr(text))}"
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
            return f"{path}: line {records.first_line}: cannot be read: {error}; a quote may not be closed"
    return None


def _open(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if compression_of(path) else path.open("rb")  # type: ignore[return-value]


def compression_of(path: Path) -> str | None:
    return "gzip" if path.name.lower().endswith(".gz") else None


def shortened(text: str, most: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]} ..."
