"""Pairs of user and item as samples to predict, under the ids and scales of an earlier training."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from lmn_model.data.dataset import sample_tables
from lmn_model.data.events import check_columns, check_events, check_feature, check_ids, check_times
from lmn_model.data.schema import DataError, Schema
from lmn_model.data.splits import Split
from lmn_model.data.vocabularies import Vocabularies


def prepare_pairs(
    pairs: pl.DataFrame,
    events: pl.DataFrame,
    schema: Schema,
    vocabularies: Vocabularies,
    window: int,
    *,
    history: Literal["positive", "all"] = "positive",
    search_by: str | None = None,
    search_window: int = 50,
) -> Split:
    """Make samples of pairs whose label nobody knows yet.

    Features of users and items are those saved in training. One that training did not read has the features of its
    first event in ``events``; one without any event has every feature unseen.

    Args:
        pairs: user and item columns, every context feature, and the timestamp column if it has one.
        events: the events that make up the histories, with all the columns of the schema.
        schema: names of the columns of both tables, those of training.
        vocabularies: what training saved.
        window: T, that of training.
        history: which events enter histories, as in ``DataOptions``.
        search_by: as in ``DataOptions``.
        search_window: as in ``DataOptions``.

    Returns:
        One sample for each pair, in the order of ``pairs``, with NaN for a label. Its history holds the events
        strictly before its timestamp; without a timestamp column it holds them all, and ``timestamps`` is the largest
        int64.

    Raises:
        DataError: if a table fails a check, the pairs lack a context feature, the schema or the kind of timestamps is
            not that of training, or ``search_by`` is no item feature.
    """
    vocabularies.check_schema(schema)
    checked = check_events(events, schema, vocabularies.kinds)
    vocabularies.check_clock(checked.clock)
    check_columns(pairs, (schema.user, schema.item, *schema.context_features), "pairs")
    try:
        user, item = check_ids(pairs[schema.user]), check_ids(pairs[schema.item])
        contexts = [check_feature(pairs[name], vocabularies.kinds[name])[0] for name in schema.context_features]
        times = np.full(pairs.height, np.iinfo(np.int64).max)
        if schema.timestamp in pairs.columns:
            clock, column = check_times(pairs[schema.timestamp])
            vocabularies.check_clock(clock)
            times = column.to_numpy()
    except DataError as error:
        raise DataError(f"pairs: {error}") from error
    known = vocabularies.extended(checked.frame).with_unknown(user, item)
    # The user column lends the table its height where there is no context feature.
    table = pl.DataFrame([user, *contexts])
    tables = sample_tables(
        checked, table, known, window=window, history=history, search_by=search_by, search_window=search_window
    )
    users = known.users.rows(user)
    return Split(
        tables,
        users=users,
        items=known.items.rows(item),
        events=np.arange(pairs.height, dtype=np.int32),
        history_ends=tables.histories.ends(users, times),
        labels=np.full(pairs.height, np.nan, dtype=np.float32),
        timestamps=times,
    )
