"""The header of a table, checked before a row is read.

Only the standard library is used, so that the command checks the columns of a file before torch is loaded.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from lmn_model.data.schema import DataError
from lmn_model.data.tables.text_records import Records, open_text, separator_of
from lmn_model.wording import did_you_mean, shown, shown_names

TEXT_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
HEADER_BYTES = 1 << 20
"""A longer first line is no header: the file has no line ends, or is no table."""


def read_header(path: Path) -> list[str]:
    """The column names of the first line of a CSV or TSV file.

    Raises:
        DataError: if the file is empty, is no UTF-8 text, or names a column twice.
        OSError: if it cannot be opened.
    """
    try:
        with open_text(path) as file:
            head = file.read(HEADER_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: must be a gzip file, as its name says: {error}") from None
    try:
        header = next(Records(io.StringIO(_decoded(head, path), newline=""), separator_of(path)), [])
    except csv.Error as error:
        raise DataError(f"{path}: line 1: cannot be read: {error}") from None
    if not header:
        raise DataError(f"{path}: the file is empty; it must begin with a line of column names")
    if twice := [name for name, count in Counter(header).items() if name and count > 1]:
        raise DataError(
            f"{path}: line 1: names the column {shown(twice[0])} twice; rename one of them, or put a line of column "
            "names first if this one holds values"
        )
    return header


def _decoded(head: bytes, path: Path) -> str:
    """The text at the beginning of a file, up to the first byte that is no UTF-8, which must not be in the header."""
    first = head.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n").splitlines(keepends=True)[:1]
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in b"".join(first):
        raise DataError(f"{path}: line 1: must be UTF-8 text, got UTF-16 or a binary file; save it as UTF-8")
    try:
        return head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\n" not in head[: error.start] and b"\r" not in head[: error.start]:
            found = error.object[error.start : error.start + 1]
            raise DataError(f"{path}: line 1: must be UTF-8 text, got {found!r}; save the file as UTF-8") from None
        return head[: error.start].decode("utf-8-sig")


def check_columns(names: Sequence[str], wanted: Collection[str], table: str) -> None:
    """Raise DataError with the columns of ``table`` and what may be wrong, unless all ``wanted`` are among them."""
    missing = [name for name in wanted if name not in names]
    if missing:
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
