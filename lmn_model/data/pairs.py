"""Pairs of user and item as samples to predict, under the ids and scales of an earlier training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.dataset import events_of_run, sample_tables
from lmn_model.data.entities import Entities
from lmn_model.data.events import check_ids
from lmn_model.data.features import UNSEEN
from lmn_model.data.kinds import Kind, check_feature
from lmn_model.data.schema import DataError, Schema
from lmn_model.data.splits import FeatureTable, Split
from lmn_model.data.tables import Table, check_columns
from lmn_model.data.times import check_times, format_time
from lmn_model.data.vocabularies import Vocabularies
from lmn_model.data.vocabulary import Encoder
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
    frame, place = pairs.frame, pairs.place
    check_columns(frame.columns, (schema.user, schema.item, *schema.context_features), pairs.name)
    if frame.is_empty():
        raise DataError(f"{pairs.name}: the table is empty")
    known = vocabularies.extended(checked.frame)
    try:
        user, item = check_ids(frame[schema.user], place), check_ids(frame[schema.item], place)
        contexts = [
            check_feature(frame[name], vocabularies.kinds[name], place, missing=schema.missing_numbers)
            for name in schema.context_features
        ]
        times = _times(pairs, schema, vocabularies)
        users = _resolved(known.users, user, _given(pairs, schema.user_features, known.kinds), known.encoder, place)
        items = _resolved(known.items, item, _given(pairs, schema.item_features, known.kinds), known.encoder, place)
    except DataError as error:
        raise DataError(f"{pairs.name}: {error}") from error
    # The user column lends the table its height where there is no context feature.
    tables = sample_tables(
        checked,
        pl.DataFrame([user, *contexts]),
        known,
        window=window,
        history=history,
        search_by=search_by,
        search_window=search_window,
        new_users=users.added,
        new_items=items.added,
    )
    item_rows = items.rows + (items.rows >= len(known.items))  # the row of padding stands between known and new items
    ends = tables.histories.ends(users.rows, times)
    _warn_of_histories(ends - tables.histories.starts[users.rows], times, checked.times(schema), vocabularies)
    return Split(
        tables,
        users=users.rows,
        items=item_rows,
        events=np.arange(frame.height, dtype=np.int32),
        history_ends=ends,
        labels=np.full(frame.height, np.nan, dtype=np.float32),
        timestamps=times,
    )


def _times(pairs: Table, schema: Schema, vocabularies: Vocabularies) -> NDArray[np.int64]:
    if schema.timestamp not in pairs.frame.columns:
        return np.full(pairs.frame.height, np.iinfo(np.int64).max)
    clock, column = check_times(pairs.frame[schema.timestamp], pairs.place, schema.time_format)
    vocabularies.check_clock(clock, column)
    return column.to_numpy()


def _given(pairs: Table, columns: tuple[str, ...], kinds: Mapping[str, Kind]) -> dict[str, pl.Series]:
    """Checked features of users or items that the pairs have."""
    frame = pairs.frame
    return {
        name: check_feature(frame[name], kinds[name], pairs.place, missing="indicator")
        for name in columns
        if name in frame.columns
    }


class _Resolved(NamedTuple):
    """Rows of the users or items of the pairs; those of ``added`` come after the known ones.

    Args:
        rows: int32 [S].
        added: features of the unknown ones, one row for each pair that has one.
    """

    rows: NDArray[np.int32]
    added: FeatureTable


def _resolved(
    known: Entities, keys: pl.Series, given: dict[str, pl.Series], encoder: Encoder, place: Callable[[int], str]
) -> _Resolved:
    columns = known.columns
    ids = np.full((len(keys), known.ids.shape[1]), UNSEEN, dtype=np.int64)
    numbers = np.tile(encoder.unknown(columns), (len(keys), 1))
    given_ids, given_numbers = encoder.encode(pl.DataFrame(list(given.values())), tuple(given))
    categorical = [name for name in columns if name in encoder.vocabularies]
    id_places = [categorical.index(name) for name in given if name in encoder.vocabularies]
    number_places = [encoder.numbers_of(columns).index(name) for name in encoder.numbers_of(tuple(given))]
    if given:
        ids[:, id_places], numbers[:, number_places] = given_ids, given_numbers
    rows = known.find(keys)
    unknown = rows < 0
    _warn_of_contradictions(known, keys, rows, given, ids[:, id_places], id_places, place)
    rows[unknown] = len(known) + np.arange(int(unknown.sum()))
    return _Resolved(rows, FeatureTable(ids[unknown], numbers[unknown]))


def _warn_of_contradictions(
    known: Entities,
    keys: pl.Series,
    rows: NDArray[np.int32],
    given: dict[str, pl.Series],
    ids: NDArray[np.int64],
    id_places: list[int],
    place: Callable[[int], str],
) -> None:
    """Say which categorical features of known users or items differ from those that are used."""
    names = [name for name in given if given[name].dtype == pl.String]
    there = np.flatnonzero(rows >= 0)
    for number, (name, column) in enumerate(zip(names, id_places, strict=True)):
        differs = there[ids[there, number] != known.ids[rows[there], column]]
        if len(differs):
            first = int(differs[0])
            logger.warning(
                "column %s: %d of %d rows give a value that is not the one saved for their %s, which is used instead; "
                "the first is %s of %s in %s",
                shown(name),
                len(differs),
                len(keys),
                shown(keys.name),
                shown(given[name][first]),
                shown(keys[first]),
                place(first),
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
