"""Records of a CSV or TSV file one by one: the line of a row, its bytes, and the first record that is wrong.

:mod:`lmn_model.data.tables.text_files` reads the values of a file, much faster; this is for messages and copies.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from lmn_model.data.schema import DataError
from lmn_model.wording import shown

FIELD_BYTES = 1 << 24
"""Longest field that is read."""


class Records:
    """The records of a CSV file that are not blank, with the lines on which the last one began and ended."""

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


def separator_of(path: Path) -> str:
    """A tab for ``.tsv`` and ``.tsv.gz``, a comma otherwise."""
    return "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","


def compression_of(path: Path) -> str | None:
    """``"gzip"`` or None, by the suffix."""
    return "gzip" if path.name.lower().endswith(".gz") else None


def open_text(path: Path) -> BinaryIO:
    """The bytes of a text file, decompressed."""
    return gzip.open(path, "rb") if compression_of(path) else path.open("rb")  # type: ignore[return-value]


def _records(file: BinaryIO, path: Path) -> Records:
    return Records(io.TextIOWrapper(file, encoding="latin-1", newline=""), separator_of(path))


def line_of(path: Path, row: int) -> int:
    """The line on which row ``row`` (from 0) of the file begins, as an editor counts them."""
    with open_text(path) as file:
        records = _records(file, path)
        for number, _ in enumerate(records):
            if number == row + 1:  # the header is a record too
                return records.first_line
    raise DataError(f"{path}: has no row {row + 1} any more; it changed while it was read")


def raw_records(path: Path) -> tuple[bytes, list[bytes]]:
    """The header and the rows byte for byte, each with its end of line, without blank lines.

    Raises:
        OSError: if the file cannot be read.
    """
    with open_text(path) as file:
        content = file.read()
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""
    lines = content.removeprefix(mark).splitlines(keepends=True)
    if b'"' in content:
        found, first = [], 0
        reader = Records((line.decode("latin-1") for line in lines), separator_of(path))
        for _ in reader:
            found.append(b"".join(lines[first : reader.line_num]).lstrip(b"\r\n"))
            first = reader.line_num
    else:  # every line is a record
        found = [line for line in lines if line.strip(b"\r\n")]
    return mark + found[0], found[1:]


def append_column(file: BinaryIO, source: Path, name: str, values: Sequence[str]) -> None:
    """Copy a text file byte for byte, without blank lines and with one more field at the end of each row.

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


def diagnosis_of(path: Path, header: Sequence[str], columns: Sequence[str]) -> str | None:
    """What is wrong with the first bad record, by line and column; None if none is found."""
    wanted = [(place, name) for place, name in enumerate(header) if name in columns]
    with open_text(path) as file:
        records = _records(file, path)
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


def shortened(text: str, length: int = 200) -> str:
    """Text on one line, cut after ``length`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[:length]} ..."
