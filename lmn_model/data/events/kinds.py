"""Which feature columns are measures and which are names.

A typed table says it: floats and decimals are numeric, everything else is categorical. A text file does not, and what
its values look like depends on the rows it happens to hold. So the kinds are decided once, from the training file, and
saved with the run. Text is numeric if all its values are decimal numbers and some are written with a point; whole
numbers are categorical, as codes are more common than counts. A column that is neither one nor the other is refused:
taken as names, one ``NA`` among prices would make thousands of categories of them.
"""

from __future__ import annotations

from typing import Literal

import polars as pl

from lmn_model.data.schema import DataError, Schema
from lmn_model.data.tables.table import Column, Table
from lmn_model.wording import shown

Kind = Literal["categorical", "numeric"]

MISSING = (
    "",
    "na",
    "n/a",
    "#n/a",
    "nan",
    "null",
    "none",
    "nil",
    "-",
    "--",
    "\u2013",
    "\u2014",
    "?",
    ".",
    "<na>",
    r"\n",
)
"""What stands for a number that is missing, in lower case."""
_OTHER_NUMBER = r"^[+-]?[$€£¥]?\s?\d{1,3}([ ,.']?\d{3})*([.,]\d+)?\s?[%$€£¥]?$"
"""Numbers with a currency, a percent sign, groups of thousands or a decimal comma."""
MAJORITY = 0.5
"""A column with more than this share of numbers among its distinct values is taken for a column of numbers."""


def kind_of(column: Column, schema: Schema, untyped: bool) -> Kind:
    """The kind of a feature column of the training table.

    Args:
        column: the values.
        schema: may say it.
        untyped: whether the values are text because the file has no types.

    Raises:
        DataError: if the text is neither all numbers nor clearly something else.
    """
    if column.name in schema.numeric:
        return "numeric"
    if column.name in schema.categorical:
        return "categorical"
    dtype = column.values.dtype
    if dtype.is_float() or dtype.is_decimal():
        return "numeric"
    if untyped and dtype == pl.String:
        return _kind_of_text(column)
    return "categorical"


def _kind_of_text(column: Column) -> Kind:
    values = column.values.unique().drop_nulls()
    values = values.filter(~is_missing(values))
    if not len(values):
        return "categorical"
    numbers = to_numbers(values)
    fractional = int((numbers.is_not_null() & values.str.contains(".", literal=True)).sum())
    count = len(values) - numbers.null_count()
    if count == len(values):
        return "numeric" if fractional else "categorical"
    if fractional and count > MAJORITY * len(values):
        _ask(column, values.filter(numbers.is_null()), f"{count} of its {len(values)} values are numbers")
    other = values.str.contains(_OTHER_NUMBER) & (numbers.is_null() | values.str.contains(".", literal=True))
    if other.sum() > MAJORITY * len(values):
        _ask(column, values.filter(other & numbers.is_null()), "its values look like numbers of another notation")
    return "categorical"


def _ask(column: Column, odd: pl.Series, why: str) -> None:
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
    """Text as float64, null where it is no decimal number; spaces around it do not count."""
    numbers = values.cast(pl.Float64, strict=False)
    if numbers.null_count() > values.null_count():
        numbers = values.str.strip_chars().cast(pl.Float64, strict=False)
    return numbers.scatter((~numbers.is_finite()).arg_true(), None)


def check_feature(
    column: Column,
    kind: Kind,
    *,
    missing: Literal["refuse", "indicator"] = "refuse",
    checked_rows: pl.Series | None = None,
) -> pl.Series:
    """A feature as text or float64; null where it is missing.

    Args:
        column: the values.
        kind: the kind it has in the run.
        missing: whether numbers may be missing, see ``Schema``.
        checked_rows: bool mask of the rows that must have a number; None for all.

    Raises:
        DataError: if the type can be no feature, a value is no number where the kind is numeric, or a checked number
            is missing or infinite.
    """
    name, values = shown(column.name), column.values
    if values.dtype.is_nested() or values.dtype in (pl.Binary, pl.Object, pl.Duration):
        raise DataError(f"column {name}: a feature must be text, a number, a boolean or a date, got {values.dtype}")
    if kind == "categorical":
        return _as_names(values)
    numbers = _as_numbers(column)
    if missing == "refuse":
        absent = numbers.is_null() if checked_rows is None else numbers.is_null() & checked_rows
        if count := int(absent.sum()):
            raise DataError(
                f"column {name}: {column.at(absent)}: a numeric feature must have a finite number, got "
                f"{column.first(absent)} ({count} of {len(numbers)} rows); a model that is trained with "
                f"--missing-numbers indicator takes missing ones, one with --categorical {name} any value"
            )
    return numbers


def _as_numbers(column: Column) -> pl.Series:
    """float64, null where a number is missing."""
    name, values = shown(column.name), column.values
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        text = values.cast(pl.String)
        numbers = to_numbers(text)
        wrong = numbers.is_null() & ~is_missing(text)
        if count := int(wrong.sum()):
            raise DataError(
                f"column {name}: {column.at(wrong)}: a numeric feature must be a finite number such as 3.20, got "
                f"{column.first(wrong)} ({count} of {len(text)} rows)"
            )
        return numbers
    if not (values.dtype.is_numeric() or values.dtype in (pl.Null, pl.Boolean)):
        raise DataError(f"column {name}: it is numeric in this run, but has the type {values.dtype} here")
    numbers = values.cast(pl.Float64).fill_nan(None)
    wrong = numbers.is_infinite().fill_null(False)
    if count := int(wrong.sum()):
        raise DataError(
            f"column {name}: {column.at(wrong)}: a numeric feature must be finite, got infinity in {count} rows"
        )
    return numbers


def _as_names(values: pl.Series) -> pl.Series:
    """Text, null where it is empty.

    Whole numbers in a float column, as pandas writes codes where some are missing, lose their ``.0``.
    """
    if not values.dtype.is_float():
        return values.cast(pl.String).replace({"": None})
    values = values.fill_nan(None)
    whole = values.cast(pl.Int64, strict=False)
    exact = (whole.cast(pl.Float64) == values.cast(pl.Float64)).fill_null(False)
    return values.cast(pl.String).zip_with(~exact, whole.cast(pl.String))


def list_like(values: pl.Series, separators: str = "|;,") -> tuple[str, float] | None:
    """The separator that many names of a categorical column hold and the share that does; None if there is none.

    Args:
        values: the distinct values, text.
    """
    if len(values) < 10:
        return None
    for each in separators:
        share = float(values.str.contains(each, literal=True).fill_null(False).mean())  # type: ignore[arg-type]
        parts = values.drop_nulls().str.split(each).explode().n_unique()
        if share >= 0.2 and parts < len(values):
            return each, share
    return None


def kinds_of(table: Table, schema: Schema) -> dict[str, Kind]:
    """The kind of each feature column of a training table; see :func:`kind_of`."""
    return {name: kind_of(table.column(name), schema, table.untyped) for name in schema.features}
