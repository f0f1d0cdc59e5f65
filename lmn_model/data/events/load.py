"""Samples for training, validation and test from one event table, split by time.

What a model may know at a moment is what came strictly before it. So the parts are cut by time and never through one
timestamp; ids, scales and popularity come from the training part alone; and histories end strictly before the sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.events.columns import Events, check_events
from lmn_model.data.events.description import describe, summarise, warn_of
from lmn_model.data.events.entities import Entities
from lmn_model.data.events.tables import Table, as_table, column_of
from lmn_model.data.events.times import Clock, format_time, parse_time
from lmn_model.data.events.vocabularies import Vocabularies
from lmn_model.data.features import FeatureSpec
from lmn_model.data.histories import Histories
from lmn_model.data.negatives import NegativeSampler
from lmn_model.data.options import DataOptions
from lmn_model.data.rows.features import RowFeatures
from lmn_model.data.schema import DataError, Schema
from lmn_model.data.search import HardSearch
from lmn_model.data.splits import FeatureTable, SampleTables, Split
from lmn_model.wording import shown

PARTS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Prepared data.

    Args:
        vocabularies: ids, scales and the features of users and items; of prepared rows the features alone.
        train: samples to learn from, the earliest.
        valid: samples to choose by.
        test: samples to report on, the latest.
        event_count: events of the table.
    """

    vocabularies: Vocabularies | RowFeatures
    train: Split
    valid: Split
    test: Split
    event_count: int

    @property
    def features(self) -> FeatureSpec:
        """What a model must know to be built."""
        return self.vocabularies.features

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {name: getattr(self, name) for name in PARTS}

    def describe(self) -> dict[str, object]:
        """Counts for ``metrics.json``; see :func:`lmn_model.data.events.description.describe`."""
        return describe(self.splits, self.event_count, self._clock)

    def summary(self) -> str:
        """What the splits hold, in one line for a log."""
        return summarise(self.splits, self._clock)

    def warnings(self) -> list[str]:
        """What a reader of the metrics must know of these data, a sentence each; none is known of prepared rows."""
        return warn_of(self.splits, self.vocabularies) if isinstance(self.vocabularies, Vocabularies) else []

    @property
    def _clock(self) -> Clock | None:
        return self.vocabularies.clock if isinstance(self.vocabularies, Vocabularies) else None


def load_dataset(
    table: Table | pl.DataFrame | Events,
    schema: Schema,
    options: DataOptions | None = None,
    *,
    vocabularies: Vocabularies | None = None,
) -> Dataset:
    """Make samples of an event table.

    Every labelled event is a sample. Without labels every event is a positive, followed by its sampled negatives, which
    have its user, time, context and history.

    Args:
        table: the events, in any order; with ``vocabularies`` also as :func:`events_of_run` gives them.
        schema: names of its columns.
        options: how samples are made; None for the defaults.
        vocabularies: ids of an earlier run, to score other events under them; None learns them from the training part.

    Returns:
        The data set, a pure function of the arguments.

    Raises:
        DataError: if the table fails a check (see ``check_events``), a part is empty or holds one class only, the
            training part has a single item to draw negatives from, or the table is not like that of ``vocabularies``.
    """
    options = options or DataOptions()
    if vocabularies is None:
        if isinstance(table, Events):
            raise TypeError("load_dataset: events that are checked already need vocabularies")
        events = check_events(as_table(table), schema)
        sample_rows, cuts = _parts(events, schema, options)
        vocabularies = Vocabularies.fit(events, schema, int(cuts[1]), options.min_item_count)
    else:
        events = table if isinstance(table, Events) else events_of_run(table, schema, vocabularies)
        sample_rows, cuts = _parts(events, schema, options)
        vocabularies = vocabularies.extended(events.frame)
    samples = _Samples(events, vocabularies, options, popular_rows=int(cuts[1]))
    splits: dict[str, Split] = {}
    for part, name in enumerate(PARTS):
        rows = sample_rows[slice(*np.searchsorted(sample_rows, cuts[part : part + 2]))]
        rows = capped(rows, options.max_train_rows if name == "train" else options.max_eval_rows, options.seed, part)
        splits[name] = samples.split(rows, part, f"{name} split")
    return Dataset(vocabularies, **splits, event_count=events.frame.height)


def load_samples(
    events: Events, options: DataOptions, vocabularies: Vocabularies, *, earlier: Events | None = None
) -> Split:
    """All samples of an event table as one split, under the ids of an earlier run.

    Args:
        events: from :func:`events_of_run`.
        options: how samples are made; the fractions and moments of the splits do not apply.
        vocabularies: of the run.
        earlier: events that come before, which enter histories and are no samples.

    Raises:
        DataError: if there is no sample, or all have one class.
    """
    schema = vocabularies.schema
    rows = np.flatnonzero(events.samples(schema))
    if not len(rows):
        raise DataError(f"column {shown(schema.label)}: every label is null, so there is no sample")
    if earlier is not None:
        rows += earlier.frame.height
        events = replace(events, frame=pl.concat([earlier.frame, events.frame]))
    known = vocabularies.extended(events.frame)
    samples = _Samples(events, known, options, popular_rows=events.frame.height)
    return samples.split(capped(rows, options.max_eval_rows, options.seed, len(PARTS)), len(PARTS), "the samples")


def events_of_run(table: Table | pl.DataFrame, schema: Schema, vocabularies: Vocabularies) -> Events:
    """A checked event table whose values are read as those of an earlier run were.

    Raises:
        DataError: if the table fails a check, or has other columns or another kind of timestamps than that of the run.
    """
    vocabularies.check_schema(schema)
    table = as_table(table)
    events = check_events(table, schema, vocabularies.kinds)
    try:
        vocabularies.check_clock(events.clock, column_of(events.frame, schema.timestamp))
    except DataError as error:
        raise DataError(f"{table.name}: {error}") from error
    return events


class _Samples:
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
        self._tables = sample_tables(
            events,
            events.frame,
            vocabularies,
            window=options.window,
            history=options.history,
            search_by=options.search_by,
            search_window=options.search_window,
        )
        self._users = vocabularies.users.rows(column_of(events.frame, schema.user))
        self._items = vocabularies.items.rows(column_of(events.frame, schema.item))
        self._times = events.times(schema)
        self._ends = self._tables.histories.ends(self._users, self._times)
        self._labels = None if schema.label is None else column_of(events.frame, schema.label).to_numpy()
        self._popular = self._items[:popular_rows]

    def split(self, rows: NDArray[np.intp], part: int, name: str) -> Split:
        """The samples of the events at ``rows``; draws are those of number ``part``, messages call them ``name``."""
        options = self._options
        if self._labels is not None:
            candidates, labels = self._items[rows], self._labels[rows]
        else:
            sampler = NegativeSampler(self._popular, self._tables.histories.padding_item)
            rng = np.random.default_rng([options.seed, part, 1])
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
    *,
    window: int,
    history: str,
    search_by: str | None = None,
    search_window: int = 50,
    new_users: FeatureTable | None = None,
    new_items: FeatureTable | None = None,
) -> SampleTables:
    """The tables that splits share.

    Args:
        events: the events that make up the histories; every user and item must be in ``vocabularies``.
        contexts: checked context features, one row for each number in ``Split.events``.
        vocabularies: ids, scales and the features of users and items.
        window: T.
        history: ``"positive"`` or ``"all"``, see ``DataOptions``.
        search_by: see ``DataOptions``.
        search_window: S.
        new_users: users without events, whose rows come after those of ``vocabularies``.
        new_items: items without events, whose rows come after those of ``vocabularies`` and the one of padding.

    Raises:
        DataError: if ``search_by`` is no item feature.
    """
    schema, users, items = vocabularies.schema, vocabularies.users, vocabularies.items
    user_table = FeatureTable(users.ids, users.numbers).joined(new_users)
    frame = events.frame
    if schema.label is not None and history == "positive":
        frame = frame.filter((column_of(frame, schema.label) == 1).fill_null(True))
    histories = Histories(
        users.rows(column_of(frame, schema.user)),
        items.rows(column_of(frame, schema.item)),
        column_of(frame, schema.timestamp).to_numpy(),
        user_count=len(user_table.ids),
        padding_item=len(items),
    )
    item_table = _with_padding(items).joined(new_items)
    return SampleTables(
        users=user_table,
        items=item_table,
        events=FeatureTable(*vocabularies.encoder.encode(contexts, schema.context_features)),
        histories=histories,
        window=window,
        search=hard_search(histories, item_table, vocabularies.features, search_by, search_window),
    )


def hard_search(
    histories: Histories, items: FeatureTable, features: FeatureSpec, search_by: str | None, window: int
) -> HardSearch | None:
    """The search by one item feature, or None if none is named.

    Raises:
        DataError: if ``search_by`` is no item feature.
    """
    if search_by is None:
        return None
    names = [feature.name for feature in features.item]
    if search_by not in names:
        raise DataError(f"search_by: there is no item feature {search_by!r}; there are {', '.join(names)}")
    return HardSearch(histories, items.ids[:, names.index(search_by)], window)


def _parts(events: Events, schema: Schema, options: DataOptions) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of the events that are samples, and the four rows where the parts begin and end."""
    times, rows = events.times(schema), np.flatnonzero(events.samples(schema))
    if not len(rows):
        raise DataError(f"column {shown(schema.label)}: every label is null, so there is no sample")
    if options.valid_from is not None and options.test_from is not None:
        valid_from = parse_time(options.valid_from, events.clock, "valid_from")
        test_from = parse_time(options.test_from, events.clock, "test_from")
        if valid_from >= test_from:
            raise DataError(
                f"valid_from must be before test_from, got {options.valid_from!r} and {options.test_from!r}"
            )
    else:
        tail = (options.valid_fraction + options.test_fraction, options.test_fraction)
        valid_from, test_from = (int(times[rows[int(len(rows) * (1 - share))]]) for share in tail)
    # All events of one moment go to the later part: a cut through a basket would show one half of it to the other.
    cuts = np.array([0, *np.searchsorted(times, [valid_from, test_from]), len(times)])
    counts = np.diff(np.searchsorted(rows, cuts))
    if counts.min() == 0:
        found = ", ".join(f"{name} {count}" for name, count in zip(PARTS, counts, strict=True))
        raise DataError(
            f"splits: each needs a sample, got {found} with the validation split from "
            f"{format_time(valid_from, events.clock)} and the test split from {format_time(test_from, events.clock)}"
        )
    return rows, cuts


def capped(rows: NDArray[np.intp], most: int | None, seed: int, part: int) -> NDArray[np.intp]:
    """At most ``most`` of ``rows``, drawn uniformly and kept in their order."""
    if most is None or most >= len(rows):
        return rows
    return np.sort(np.random.default_rng([seed, part, 0]).choice(rows, most, replace=False))


def refuse_one_class(labels: NDArray[np.float32], where: str) -> None:
    """Raise DataError, naming ``where``, if the labels of a part are all 0 or all 1."""
    positives = int(labels.sum())
    if positives in (0, len(labels)):
        only = int(positives > 0)
        raise DataError(f"{where}: all {len(labels)} labels are {only}; a split needs both classes")


def _with_padding(entities: Entities) -> FeatureTable:
    one_row = ((0, 1), (0, 0))
    return FeatureTable(np.pad(entities.ids, one_row), np.pad(entities.numbers, one_row))
