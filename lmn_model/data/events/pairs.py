"""Pairs of user and item as samples to predict, under the ids and scales of an earlier training."""

from __future__ import annotations

import logging
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.clocks import format_time
from lmn_model.data.events.description import warn_of_unseen_values
from lmn_model.data.events.entities import Entities
from lmn_model.data.events.event_table import check_ids
from lmn_model.data.events.kinds import check_feature
from lmn_model.data.events.load import events_of_run, sample_tables
from lmn_model.data.events.times import check_times
from lmn_model.data.events.vocabularies import Vocabularies
from lmn_model.data.features import UNSEEN
from lmn_model.data.schema import DataError, Schema
from lmn_model.data.splits import FeatureTable, Split
from lmn_model.data.tables.header import check_columns
from lmn_model.data.tables.table import Table, column_of
from lmn_model.wording import shown

logger = logging.getLogger("lmn")


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
    event in ``events``; of an id without any event, those that its own row of ``pairs`` gives. What no table gives is
    unseen. Features in ``pairs`` that differ from the saved ones are not used, and a warning says so.

    Args:
        pairs: user and item columns, every context feature, and, if it has them, the timestamp column and features of
            users and items.
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
    checked = events_of_run(events, schema, vocabularies)
    pairs = pairs if isinstance(pairs, Table) else Table(pairs, "pairs")
    check_columns(pairs.frame.columns, (schema.user, schema.item, *schema.context_features), pairs.name)
    if pairs.frame.is_empty():
        raise DataError(f"{pairs.name}: the table is empty")
    known = vocabularies.extended(checked.frame)
    try:
        contexts = {schema.user: check_ids(pairs.column(schema.user))}  # it lends the height where there is no other
        for name in schema.context_features:
            contexts[name] = check_feature(pairs.column(name), known.kinds[name], missing=schema.missing_numbers)
        times = _times(pairs, schema, vocabularies)
        users = _resolved(known.users, pairs, schema.user_features, known)
        items = _resolved(known.items, pairs, schema.item_features, known)
    except DataError as error:
        raise DataError(f"{pairs.name}: {error}") from error
    tables = sample_tables(
        checked,
        pl.DataFrame(contexts),
        known,
        window=window,
        history=history,
        search_by=search_by,
        search_window=search_window,
        new_users=users.added,
        new_items=items.added,
    )
    item_rows = items.rows + (items.rows >= len(known.items))  # the row of padding stands between known and new items
    warn_of_unseen_values(tables.events.ids, schema.context_features, known, pairs.name)
    ends = tables.histories.ends(users.rows, times)
    _warn_of_histories(ends - tables.histories.starts[users.rows], times, checked.times(schema), vocabularies)
    return Split(
        tables,
        users=users.rows,
        items=item_rows,
        events=np.arange(pairs.frame.height, dtype=np.int32),
        history_ends=ends,
        labels=np.full(pairs.frame.height, np.nan, dtype=np.float32),
        timestamps=times,
    )


def _times(pairs: Table, schema: Schema, vocabularies: Vocabularies) -> NDArray[np.int64]:
    if schema.timestamp not in pairs.frame.columns:
        return np.full(pairs.frame.height, np.iinfo(np.int64).max)
    clock, times = check_times(pairs.column(schema.timestamp), schema.time_format)
    vocabularies.check_clock(clock, times)
    return times.to_numpy()


class _Resolved(NamedTuple):
    """Rows of the users or items of the pairs; those of ``added`` come after the known ones.

    Args:
        rows: int32 [S].
        added: features of the unknown ones, one row for each pair that has one.
    """

    rows: NDArray[np.int32]
    added: FeatureTable


def _resolved(known: Entities, pairs: Table, features: tuple[str, ...], vocabularies: Vocabularies) -> _Resolved:
    """Find the users or items of the pairs; one that is not known has the features that its row gives."""
    encoder, columns = vocabularies.encoder, known.columns
    keys = check_ids(pairs.column(columns[0]))
    rows = known.find(keys)
    given = {
        name: check_feature(pairs.column(name), vocabularies.kinds[name], missing="indicator")
        for name in features
        if name in pairs.frame.columns
    }
    ids = np.full((len(keys), known.ids.shape[1]), UNSEEN, dtype=np.int64)
    numbers = np.tile(encoder.unknown(columns), (len(keys), 1))
    if given:
        given_ids, given_numbers = encoder.encode(pl.DataFrame(given), tuple(given))
        known_ids, known_numbers = encoder.places(columns)
        for name, column in zip((n for n in given if n in encoder.vocabularies), given_ids.T, strict=True):
            ids[:, known_ids[name]] = column
            _warn_of_contradictions(pairs, name, columns[0], rows, column, known.ids[:, known_ids[name]])
        for name, column in zip(encoder.numbers_of(tuple(given)), given_numbers.T, strict=True):
            numbers[:, known_numbers[name]] = column
            if name in given:
                _warn_of_contradictions(pairs, name, columns[0], rows, column, known.numbers[:, known_numbers[name]])
    unknown = rows < 0
    rows[unknown] = len(known) + np.arange(int(unknown.sum()))
    return _Resolved(rows, FeatureTable(ids[unknown], numbers[unknown]))


def _warn_of_contradictions(
    pairs: Table, name: str, key: str, rows: NDArray[np.int32], given: NDArray[Any], saved: NDArray[Any]
) -> None:
    """Say where a feature of a known user or item differs from the saved one, which is used; a blank does not."""
    there = np.flatnonzero((rows >= 0) & column_of(pairs.frame, name).is_not_null().to_numpy())
    differs = there[~np.isclose(given[there], saved[rows[there]], rtol=1e-5, atol=1e-5)]
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
    empty = float((lengths <= 0).mean()) if len(lengths) else 0.0
    if empty < 0.5:
        return
    what = "all" if empty == 1 else f"{100 * empty:.0f} %"
    clock, first, last = vocabularies.clock, int(events.min()), int(events.max())
    span = f"; the events are from {format_time(first, clock)} to {format_time(last, clock)}"
    if times.min() < np.iinfo(np.int64).max:
        span += f", the pairs from {format_time(int(times.min()), clock)} to {format_time(int(times.max()), clock)}"
    logger.warning(
        "%s of the %d pairs have an empty history: no event of the user before its time%s", what, len(lengths), span
    )
