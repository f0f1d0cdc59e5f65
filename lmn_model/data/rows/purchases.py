"""Samples, histories and items of purchases, or of other events without labels.

A sample is a purchase, or the same with another item in its place. Its history holds the events strictly before it, so
items of one basket are not in each other's history.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.histories import Histories
from lmn_model.data.negatives import GroupedNegativeSampler, NegativeSampler
from lmn_model.data.rows.files import HISTORY, ITEM, LABEL, LENGTH, USER, USER_ID
from lmn_model.data.rows.times import TIME, TIMES
from lmn_model.data.schema import DataError

MIN_EVENTS = 5
"""Items with fewer events are dropped."""
BOUGHT, GROUP = "bought", "group"
"""Columns of ``Purchases.events``, beside ``user_index``, ``item_index`` and ``timestamp``."""


@dataclass(frozen=True, eq=False)
class Purchases:
    """Events of a public data set, in the one form that ``purchase_rows`` takes.

    Args:
        events: ``user_index`` and ``item_index``, ids of any type that sorts; ``timestamp``, a datetime; ``bought``,
            False for events that belong into histories but are no positives. With a column ``group`` the negative of a
            purchase is an item of another purchase in its group, such as the same day; without it, an item drawn by
            its purchases in the training split.
        items: ``item_index`` and the features of each item, which may be null; of two rows the first counts, and an
            item without a row has no features.
        item_name: what an item is called among the features.
        valid_from: first moment of the validation split.
        test_from: first moment of the test split.
    """

    events: pl.DataFrame
    items: pl.DataFrame
    item_name: str
    valid_from: datetime
    test_from: datetime

    @property
    def spans(self) -> dict[str, tuple[datetime, datetime]]:
        """First moment of each split, and the first after it."""
        return {
            "train": (datetime.min, self.valid_from),
            "valid": (self.valid_from, self.test_from),
            "test": (self.test_from, datetime.max),
        }


@dataclass(frozen=True)
class PrepareOptions:
    """How many purchases become samples; each comes with one negative.

    Args:
        train_positives: purchases of the training split.
        valid_positives: of the validation split.
        test_positives: of the test split.
        min_history: a purchase becomes a sample only if its user has so many events before it.
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


def purchase_rows(purchases: Purchases, options: PrepareOptions) -> dict[str, pl.DataFrame]:
    """Samples, histories and items.

    Items with fewer than 5 events are dropped everywhere.

    Args:
        purchases: the events.
        options: sizes and seed.

    Returns:
        The tables ``train``, ``valid``, ``test``, ``user_info`` and ``item_info``, all integers but for the times.
        Users and items are numbered in the order of their ids, features in that of the alphabet, with the missing ones
        first.

    Raises:
        DataError: if a split has fewer purchases than ``options``, or the training split a single item.
    """
    events = purchases.events.filter(pl.len().over(ITEM) >= MIN_EVENTS)
    # Stable: the events of one basket keep the order of the file.
    events = events.sort(USER, TIME, maintain_order=True)
    kept = events[ITEM].unique().sort()
    users = events[USER].rank("dense").to_numpy().astype(np.int64) - 1
    items = events[ITEM].rank("dense").to_numpy().astype(np.int64)
    bought, moments = events[BOUGHT], events[TIME].dt.cast_time_unit("us")
    times = moments.to_physical().to_numpy()
    histories = Histories(users, items, times, user_count=events[USER].n_unique(), padding_item=0)
    lengths = histories.ends(users, times) - histories.starts[users]
    where = {
        split: (bought & moments.is_between(*span, closed="left")).to_numpy() for split, span in purchases.spans.items()
    }
    groups = events[GROUP].rank("dense").to_numpy().astype(np.int64) if GROUP in events.columns else None
    by_popularity = NegativeSampler(items[where["train"]], len(kept) + 1)
    samples = pl.DataFrame({USER: users, ITEM: items, LENGTH: lengths, USER_ID: users + 1, TIME: moments})
    tables: dict[str, pl.DataFrame] = {}
    for number, (split, inside) in enumerate(where.items()):
        rng = np.random.default_rng([options.seed, number])
        known = np.flatnonzero(inside & (lengths >= options.min_history))
        count = getattr(options, f"{split}_positives")
        if groups is None:
            rows = _drawn(known, count, split, rng)
            negatives = by_popularity.draw(items[rows], 1, rng)[:, 0]
        else:
            in_group = GroupedNegativeSampler(groups[inside], items[inside], len(kept) + 1)
            rows = _drawn(known[in_group.can_draw(groups[known], items[known])], count, split, rng)
            negatives = in_group.draw(groups[rows], items[rows], rng)
        tables[split] = _shuffled(samples[rows], negatives, rng)
    lists = pl.DataFrame({USER: users, HISTORY: items, TIMES: moments}).group_by(USER, maintain_order=True)
    tables["user_info"] = lists.agg(HISTORY, TIMES).drop(USER)
    return {**tables, "item_info": _item_info(kept, purchases)}


def _drawn(rows: NDArray[np.intp], count: int, split: str, rng: np.random.Generator) -> NDArray[np.intp]:
    if count > len(rows):
        raise DataError(f"{split}_positives: the {split} split has {len(rows)} purchases to draw from, got {count}")
    return rng.choice(rows, count, replace=False)


def _shuffled(positives: pl.DataFrame, negatives: NDArray[np.int32], rng: np.random.Generator) -> pl.DataFrame:
    """The positives, and the same with other items, with labels and in a random order."""
    others = positives.with_columns(pl.Series(ITEM, negatives, pl.Int64))
    labels = (pl.lit(label, pl.Int64).alias(LABEL) for label in (1, 0))
    both = pl.concat([rows.select(label, pl.all()) for rows, label in zip((positives, others), labels, strict=True)])
    return both[rng.permutation(both.height)]


def _item_info(kept: pl.Series, purchases: Purchases) -> pl.DataFrame:
    first = purchases.items.unique(ITEM, keep="first", maintain_order=True)
    known = kept.to_frame(ITEM).join(first, on=ITEM, how="left", maintain_order="left")
    columns = {ITEM: np.arange(len(kept) + 1), purchases.item_name: np.arange(len(kept) + 1)}
    for name in known.columns[1:]:
        # A missing value is a value of its own, the first; ids begin at 1, for 0 is padding.
        ids = known[name].rank("dense").fill_null(0).to_numpy().astype(np.int64)
        columns[name] = np.append(0, ids - ids.min() + 1)
    return pl.DataFrame(columns)
