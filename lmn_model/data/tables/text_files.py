"""Read columns of a CSV or TSV file as the text that the file holds.

Types are never inferred: ``07001`` and ``1.10`` stay what they are, and a column that is not wanted is not even
decoded. Arrow parses the file in blocks, so that progress is shown and Ctrl-C acts between two of them. It refuses a
row with more or fewer fields than the header; a second and slower pass then finds the line for the message.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv

from lmn_model.data.schema import DataError
from lmn_model.data.tables.text_records import compression_of, diagnosis_of, separator_of, shortened

BLOCK_BYTES = 1 << 24
"""Bytes that Arrow parses at once, and so the longest record."""
PROGRESS_SECONDS = 2.0
MANY_ROWS = 10**6
"""A table of this size is announced before it is sorted."""

logger = logging.getLogger("lmn")


def read_text(path: Path, header: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
    """The named columns as text, null where a field is empty; blank lines are no rows.

    Args:
        path: the file.
        header: its column names, from :func:`read_header`.
        columns: those to read.

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
            pa.input_stream(raw, compression=compression_of(path)) as stream,
            pa.csv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert) as reader,
        ):
            rows, schema = 0, reader.schema
            for batch in reader:
                batches.append(batch)
                rows += batch.num_rows
                if time.monotonic() - logged >= PROGRESS_SECONDS:
                    logged = time.monotonic()
                    logger.info("reading %s: %s rows", path, f"{rows:,}")
    except pa.ArrowException as error:
        if "Empty CSV file" in str(error):  # a header without an end of line
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        raise DataError(
            diagnosis_of(path, header, columns) or f"{path}: cannot be read: {shortened(str(error))}"
        ) from error
    if rows >= MANY_ROWS:
        logger.info("read %s rows of %s; sorting them takes a while", f"{rows:,}", path)
    table = pa.Table.from_batches(batches, schema)
    return pl.DataFrame({name: pl.from_arrow(table.column(name)) for name in columns})
