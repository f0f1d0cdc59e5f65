"""Pairs of user and item as samples to predict, under the ids and scales of an earlier training."""

from __future__ import annotations

import logging
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.clocks import format_time
from lmn_model.data.description import percent
from lmn_model.data.events.checks import check_feature, check_ids
from lmn_model.data.events.entities import Entities
from lmn_model.data.events.load import events_of_run
from lmn_model.data.events.samples import sample_tables
from lmn_model.data.events.times import check_times
from lmn_model.data.events.vocabularies import Vocabularies
from lmn_model.data.events.warnings import warn_of_unseen_values
from lmn_model.data.features import FeatureTable
from lmn_model.data.options import DataOptions
from lmn_model.data.schema import DataError, Schema
from lmn_model.data.splits import Split
from lmn_model.data.tables.header import check_columns
from lmn_model.data.tables.table import Table, as_table, column_of
from lmn_model.wording import shown

logger = logging.getLogger("lmn")

_NO_TIME = np.iinfo(np.int64).max
MANY_EMPTY = 0.5
"""A larger share of pairs with an empty history is worth a warning."""


def prepare_pairs(
    pairs: Table | pl.DataFrame,
    events: Table | pl.DataFrame,
    schema: Schema,
    vocabularies: Vocabularies,
    window: int,
    *,
    history: Literal["positive", "all"] = "positive",
    search_by: str | None = None,
    search_window: int = 50,
) -> Split:
    """Make samples of pairs whose label is not known yet.

    Features of users and items are those saved in training; of an id that training did not read, those of its first
    event in ``events``; of an id without any event, those of its own row of ``pairs``. What no table gives is unseen.
    Features in ``pairs`` that differ from the saved ones are not used, and a warning says so.

    Args:
        pairs: user and item columns, every context feature, and, if it has them, the timestamp column and features of
            users and items.
        events: the events that make up the histories, with all the columns of the schema.
        schema: names of the columns of both tables, those of training.
        vocabularies: saved by training.
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
    options = DataOptions(window=window, history=history, search_by=search_by, search_window=search_window)
    checked = events_of_run(events, schema, vocabularies)
    pairs = as_table(pairs, "pairs")
    check_columns(pairs.frame.columns, (schema.user, schema.item, *schema.context_features), pairs.name)
    if pairs.frame.is_empty():
        raise DataError(f"{pairs.name}: the table is empty")
    known = vocabularies.extended(checked.frame)
    try:
        contexts = {schema.user: check_ids(pairs.column(schema.user))}  # it lends the height where there is no other
        for name in schema.context_features:
            contexts[name] = check_feature(pairs.column(name), known.kinds[name], missing=schema.missing_numbers)
        times = _times(pairs, schema, vocabularies)
        user_rows, new_users = _resolved(known.users, pairs, known)
        item_rows, new_items = _resolved(known.items, pairs, known)
    except DataError as error:
        raise DataError(f"{pairs.name}: {error}") from error
    item_rows += item_rows >= len(known.items)  # the row of padding stands between known and new items
    tables = sample_tables(checked, pl.DataFrame(contexts), known, options, new_users=new_users, new_items=new_items)
    warn_of_unseen_values(tables.events.ids, schema.context_features, known.encoder, pairs.name)
    ends = tables.histories.ends(user_rows, times)
    _warn_of_histories(ends - tables.histories.starts[user_rows], times, checked.times(schema), vocabularies)
    return Split(
        tables,
        users=user_rows,
        items=item_rows,
        events=np.arange(pairs.frame.height, dtype=np.int32),
        history_ends=ends,
        labels=np.full(pairs.frame.height, np.nan, dtype=np.float32),
        timestamps=times,
    )


def _times(pairs: Table, schema: Schema, vocabularies: Vocabularies) -> NDArray[np.int64]:
    if schema.timestamp not in pairs.frame.columns:
        return np.full(pairs.frame.height, _NO_TIME)
    clock, times = check_times(pairs.column(schema.timestamp), schema.time_format)
    vocabularies.check_clock(clock, times)
    return times.to_numpy()


def _resolved(known: Entities, pairs: Table, vocabularies: Vocabularies) -> tuple[NDArray[np.int32], FeatureTable]:
    """Find the users or items of the pairs.

    Returns:
        Their rows, int32 [S], and the features that pairs give of the unknown ones, whose rows follow the known ones.
    """
    key, *features = known.columns
    columns = {key: check_ids(pairs.column(key))}
    for name in features:
        if name in pairs.frame.columns:
            columns[name] = check_feature(pairs.column(name), vocabularies.kinds[name], missing="indicator")
    rows, given = known.find(columns[key]), vocabularies.encoder.encode(pl.DataFrame(columns), known.columns)
    for name in features:
        if name in columns:
            saved, here = (vocabularies.encoder.column(table, known.columns, name) for table in (known.features, given))
            _warn_of_contradictions(pairs, name, key, rows, here, saved)
    unknown = rows < 0
    rows[unknown] = len(known) + np.arange(int(unknown.sum()))
    return rows, FeatureTable(given.ids[unknown], given.numbers[unknown])


def _warn_of_contradictions(
    pairs: Table, name: str, key: str, rows: NDArray[np.int32], given: NDArray[Any], saved: NDArray[Any]
) -> None:
    """Log where a feature of a known user or item differs from the saved one, which is used; a blank does not."""
    there = np.flatnonzero((rows >= 0) & column_of(pairs.frame, name).is_not_null().to_numpy())
    here, known = given[there], saved[rows[there]]
    equal = here == known if here.dtype == np.int64 else np.isclose(here, known, rtol=1e-5, atol=1e-5)
    differs = there[~equal]
    if not len(differs):
        return
    first = int(differs[0])
    logger.warning(
        "%s: column %s: %d of %d rows give another value than the one saved for their %s, which is used; the first is "
        "%s of %s in %s",
        pairs.name,
        shown(name),
        len(differs),
        len(rows),
        shown(key),
        shown(pairs.frame.get_column(name)[first]),
        shown(pairs.frame.get_column(key)[first]),
        pairs.place(first),
    )


def _warn_of_histories(
    lengths: NDArray[np.int64], times: NDArray[np.int64], events: NDArray[np.int64], vocabularies: Vocabularies
) -> None:
    empty = float((lengths <= 0).mean())
    if empty < MANY_EMPTY:
        return
    clock, first, last = vocabularies.clock, int(events.min()), int(events.max())
    span = f"; the events are from {format_time(first, clock)} to {format_time(last, clock)}"
    if times.min() < _NO_TIME:
        span += f", the pairs from {format_time(int(times.min()), clock)} to {format_time(int(times.max()), clock)}"
    logger.warning(
        "%s of the %d pairs have an empty history: no event of the user before its time%s",
        "all" if empty == 1 else percent(empty),
        len(lengths),
        span,
    )
