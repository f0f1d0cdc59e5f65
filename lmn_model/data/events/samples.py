"""From the rows of an event table to samples, with sampled negatives where there are no labels."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.dataset import refuse_one_class
from lmn_model.data.events.event_table import Events
from lmn_model.data.events.vocabularies import Vocabularies
from lmn_model.data.features import FeatureTable
from lmn_model.data.histories import Histories
from lmn_model.data.negatives import NegativeSampler
from lmn_model.data.options import DataOptions
from lmn_model.data.search import hard_search
from lmn_model.data.splits import SampleTables, Split
from lmn_model.data.tables.table import column_of
from lmn_model.data.user_rates import UserRates


class EventSamples:
    """Makes splits of rows of an event table.

    Args:
        events: the events, in the order of time.
        vocabularies: with every user and item of them.
        options: how samples are made.
        popular_rows: negatives are drawn by popularity among so many first events.
    """

    def __init__(self, events: Events, vocabularies: Vocabularies, options: DataOptions, *, popular_rows: int) -> None:
        schema = vocabularies.schema
        self._options = options
        self._tables = sample_tables(events, events.frame, vocabularies, options)
        self._users = vocabularies.users.rows(column_of(events.frame, schema.user))
        self._items = vocabularies.items.rows(column_of(events.frame, schema.item))
        self._times = events.times(schema)
        self._ends = self._tables.histories.ends(self._users, self._times)
        self._labels = None if schema.label is None else column_of(events.frame, schema.label).to_numpy()
        self._popular = self._items[:popular_rows]

    def split(self, rows: NDArray[np.intp], number: int, name: str) -> Split:
        """Samples of the events at ``rows``.

        Args:
            rows: integer [R], rows of the event table.
            number: of the split; each has its own random draws.
            name: of the split, for messages.

        Returns:
            R samples; without labels each is followed by its negatives.

        Raises:
            DataError: if all labels are equal, or there is a single item to draw negatives from.
        """
        options = self._options
        if self._labels is not None:
            candidates, labels = self._items[rows], self._labels[rows]
        else:
            sampler = NegativeSampler(self._popular, self._tables.histories.padding_item)
            rng = np.random.default_rng([options.seed, number, 1])
            negatives = sampler.draw(self._items[rows], options.negatives, rng)
            candidates = np.column_stack([self._items[rows], negatives]).ravel()
            labels = np.tile(np.eye(1, options.negatives + 1, dtype=np.float32)[0], len(rows))
            rows = np.repeat(rows, options.negatives + 1)
        refuse_one_class(labels, name)
        return Split(
            self._tables,
            users=self._users[rows],
            items=candidates,
            events=rows.astype(np.int32),
            history_ends=self._ends[rows],
            labels=labels,
            timestamps=self._times[rows],
        )


def sample_tables(
    events: Events,
    contexts: pl.DataFrame,
    vocabularies: Vocabularies,
    options: DataOptions,
    *,
    new_users: FeatureTable | None = None,
    new_items: FeatureTable | None = None,
) -> SampleTables:
    """The tables that splits share.

    Args:
        events: the events that make up the histories; every user and item must be in ``vocabularies``.
        contexts: checked context features, one row for each number in ``Split.events``.
        vocabularies: ids, scales and the features of users and items.
        options: ``window``, ``history``, ``search_by`` and ``search_window`` apply.
        new_users: users without events, whose rows follow those of ``vocabularies``.
        new_items: items without events, whose rows follow those of ``vocabularies`` and the one of padding.

    Raises:
        DataError: if ``search_by`` is no item feature.
    """
    schema, users, items = vocabularies.schema, vocabularies.users, vocabularies.items
    user_table = users.features.followed_by(new_users)
    one_row = ((0, 1), (0, 0))
    padded = FeatureTable(np.pad(items.features.ids, one_row), np.pad(items.features.numbers, one_row))
    item_table = padded.followed_by(new_items)
    frame = events.frame
    rates = _user_rates(events, vocabularies, user_count=len(user_table.ids))
    if schema.label is not None and options.history == "positive":
        frame = frame.filter((column_of(frame, schema.label) == 1).fill_null(True))
    histories = Histories(
        users.rows(column_of(frame, schema.user)),
        items.rows(column_of(frame, schema.item)),
        column_of(frame, schema.timestamp).to_numpy(),
        user_count=len(user_table.ids),
        padding_item=len(items),
    )
    return SampleTables(
        users=user_table,
        items=item_table,
        events=vocabularies.encoder.encode(contexts, schema.context_features),
        histories=histories,
        window=options.window,
        search=hard_search(histories, item_table, vocabularies.features, options),
        user_rates=rates,
    )


def _user_rates(events: Events, vocabularies: Vocabularies, *, user_count: int) -> UserRates | None:
    schema, overall = vocabularies.schema, vocabularies.label_rate
    if overall is None:
        return None
    labelled = events.frame.filter(column_of(events.frame, schema.label).is_not_null())
    return UserRates(
        vocabularies.users.rows(column_of(labelled, schema.user)),
        column_of(labelled, schema.timestamp).to_numpy(),
        column_of(labelled, schema.label).to_numpy(),
        user_count=user_count,
        overall=overall,
    )
