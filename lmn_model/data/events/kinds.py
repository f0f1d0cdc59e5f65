"""Which feature columns are numeric and which are categorical.

A typed table says it: floats and decimals are numeric, everything else is categorical. A text file does not, and the
look of its values depends on the rows that it happens to hold. So the kinds are decided once, from the training file,
and saved with the run. Text is numeric if all its values are decimal numbers and some are written with a point.
Integers are categorical, as codes are more common than counts. A column that is neither one nor the other is refused:
as categories, one ``NA`` among prices would make thousands of them.
"""

from __future__ import annotations

from typing import Literal

import polars as pl

from lmn_model.data.schema import DataError, Schema
from lmn_model.data.tables.table import Column, Table
from lmn_model.wording import shown

Kind = Literal["categorical", "numeric"]

# fmt: off
MISSING = (
    "", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "-", "--", "\u2013", "\u2014", "?", ".", "<na>", r"\n",
)
"""Text that stands for a missing number, in lower case."""
# fmt: on
MAJORITY = 0.5
"""A column with a larger share of numbers among its distinct values is taken for a column of numbers."""
_OTHER_NUMBER = r"^[+-]?[$€£¥]?\s?\d{1,3}([ ,.']?\d{3})*([.,]\d+)?\s?[%$€£¥]?$"
"""Numbers with a currency, a percent sign, groups of thousands or a decimal comma."""


def kinds_of(table: Table, schema: Schema) -> dict[str, Kind]:
    """The kind of each feature column of a training table.

    Raises:
        DataError: if text is neither all numbers nor clearly something else.
    """
    return {name: _kind_of(table.column(name), schema, table.untyped) for name in schema.features}


def _kind_of(column: Column, schema: Schema, untyped: bool) -> Kind:
    if column.name in schema.numeric:
        return "numeric"
    if column.name in schema.categorical:
        return "categorical"
    dtype = column.values.dtype
    if dtype.is_float() or dtype.is_decimal():
        return "numeric"
    return _kind_of_text(column) if untyped and dtype == pl.String else "categorical"


def _kind_of_text(column: Column) -> Kind:
    values = column.values.unique().drop_nulls()
    values = values.filter(~is_missing(values))
    if not len(values):
        return "categorical"
    is_number, has_point = to_numbers(values).is_not_null(), values.str.contains(".", literal=True)
    count, fractional = int(is_number.sum()), bool((is_number & has_point).any())
    if count == len(values):
        return "numeric" if fractional else "categorical"
    if fractional and count > MAJORITY * len(values):
        _refuse(column, values.filter(~is_number), f"{count} of its {len(values)} values are numbers")
    other = values.str.contains(_OTHER_NUMBER) & (~is_number | has_point)
    if other.sum() > MAJORITY * len(values):
        _refuse(column, values.filter(other & ~is_number), "its values look like numbers of another notation")
    return "categorical"


def _refuse(column: Column, odd: pl.Series, why: str) -> None:
    rows = (column.values == odd.min()).fill_null(False)
    name = shown(column.name)
    raise DataError(
        f"column {name}: {column.at(rows)}: {why}, but {column.first(rows)} is none; write numbers like 3.20, "
        f"or take all values as names with --categorical {name}"
    )


def is_missing(values: pl.Series) -> pl.Series:
    """Which text values stand for a missing number, bool."""
    return values.str.strip_chars().str.to_lowercase().is_in(list(MISSING)).fill_null(True)


def to_numbers(values: pl.Series) -> pl.Series:
    """Text as float64, null where it is no decimal number; spaces around a number do not count."""
    parsed = values.cast(pl.Float64, strict=False)
    if parsed.null_count() > values.null_count():
        parsed = values.str.strip_chars().cast(pl.Float64, strict=False)
    return parsed.scatter((~parsed.is_finite()).arg_true(), None)
