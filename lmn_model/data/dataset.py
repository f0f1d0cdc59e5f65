"""Samples for training, validation and test from one event table, split by time.

What a model may know at a moment is what came strictly before it. So the parts are cut by time and never through one
timestamp; ids, scales and popularity come from the training part alone; and histories end strictly before the sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.entities import Entities
from lmn_model.data.events import Clock, Events, check_events, format_time, parse_time
from lmn_model.data.features import FeatureSpec
from lmn_model.data.histories import Histories
from lmn_model.data.negatives import NegativeSampler
from lmn_model.data.options import DataOptions
from lmn_model.data.row_features import RowFeatures
from lmn_model.data.schema import DataError, Schema
from lmn_model.data.search import HardSearch
from lmn_model.data.splits import FeatureTable, SampleTables, Split
from lmn_model.data.vocabularies import Vocabularies

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

    def describe(self) -> dict[str, object]:
        """Counts for a log: users, items, events, and for each part rows, positives, users, moments, unseen items.

        ``unseen_items`` is the share of the positives, and of the negatives, whose item has no id from training.
        Prepared rows know neither moments nor which ids training has seen.
        """
        tables = self.train.tables
        clock = self.vocabularies.clock if isinstance(self.vocabularies, Vocabularies) else None
        return {
            "users": len(tables.users.ids),
            "items": len(tables.items.ids) - 1,
            "events": self.event_count,
            **{part: _describe(getattr(self, part), clock) for part in PARTS},
        }


def load_dataset(
    frame: pl.DataFrame,
    schema: Schema,
    options: DataOptions | None = None,
    *,
    vocabularies: Vocabularies | None = None,
) -> Dataset:
    """Make samples of an event table.

    Every labelled event is a sample. Without labels every event is a positive, followed by its sampled negatives, which
    have its user, time, context and history.

    Args:
        frame: the event table, in any order.
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
        events = check_events(frame, schema)
        sample_rows, cuts = _parts(events, schema, options)
        vocabularies = Vocabularies.fit(events, schema, int(cuts[1]), options.min_item_count)
    else:
        vocabularies.check_schema(schema)
        events = check_events(frame, schema, vocabularies.kinds)
        vocabularies.check_clock(events.clock)
        sample_rows, cuts = _parts(events, schema, options)
        vocabularies = vocabularies.extended(events.frame)
    tables = sample_tables(
        events,
        events.frame,
        vocabularies,
        window=options.window,
        history=options.history,
        search_by=options.search_by,
        search_window=options.search_window,
    )
    users = vocabularies.users.rows(events.frame[schema.user])
    items = vocabularies.items.rows(events.frame[schema.item])
    times = events.times(schema)
    ends = tables.histories.ends(users, times)
    known_labels = None if schema.label is None else events.frame[schema.label].to_numpy()
    splits: dict[str, Split] = {}
    for part, name in enumerate(PARTS):
        rows = sample_rows[slice(*np.searchsorted(sample_rows, cuts[part : part + 2]))]
        rows = capped(rows, options.max_train_rows if name == "train" else options.max_eval_rows, options.seed, part)
        if known_labels is not None:
            candidates, labels = items[rows], known_labels[rows]
        else:
            sampler = NegativeSampler(items[: cuts[1]], len(vocabularies.items))
            rng = np.random.default_rng([options.seed, part, 1])
            negatives = sampler.draw(items[rows], options.negatives, rng)
            candidates = np.column_stack([items[rows], negatives]).ravel()
            labels = np.tile(np.eye(1, options.negatives + 1, dtype=np.float32)[0], len(rows))
            rows = np.repeat(rows, options.negatives + 1)
        refuse_one_class(labels, f"{name} part")
        splits[name] = Split(
            tables,
            users=users[rows],
            items=candidates,
            events=rows.astype(np.int32),
            history_ends=ends[rows],
            labels=labels,
            timestamps=times[rows],
        )
    return Dataset(vocabularies, **splits, event_count=events.frame.height)


def sample_tables(
    events: Events,
    contexts: pl.DataFrame,
    vocabularies: Vocabularies,
    *,
    window: int,
    history: str,
    search_by: str | None = None,
    search_window: int = 50,
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

    Raises:
        DataError: if ``search_by`` is no item feature.
    """
    schema, users, items = vocabularies.schema, vocabularies.users, vocabularies.items
    frame = events.frame
    if schema.label is not None and history == "positive":
        frame = frame.filter(pl.col(schema.label).is_null() | (pl.col(schema.label) == 1))
    histories = Histories(
        users.rows(frame[schema.user]),
        items.rows(frame[schema.item]),
        frame[schema.timestamp].to_numpy(),
        user_count=len(users),
        padding_item=len(items),
    )
    item_table = _with_padding(items)
    return SampleTables(
        users=FeatureTable(users.ids, users.numbers),
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
        raise DataError(f"column {schema.label!r}: every label is null, so there is no sample")
    if options.valid_from is not None and options.test_from is not None:
        valid_from = parse_time(options.valid_from, events.clock, "valid_from")
        test_from = parse_time(options.test_from, events.clock, "test_from")
    else:
        tail = (options.valid_fraction + options.test_fraction, options.test_fraction)
        valid_from, test_from = (int(times[rows[int(len(rows) * (1 - share))]]) for share in tail)
    # All events of one moment go to the later part: a cut through a basket would show one half of it to the other.
    cuts = np.array([0, *np.searchsorted(times, [valid_from, test_from]), len(times)])
    counts = np.diff(np.searchsorted(rows, cuts))
    if valid_from > test_from or counts.min() == 0:
        shown = ", ".join(f"{name} {count}" for name, count in zip(PARTS, counts, strict=True))
        raise DataError(
            f"parts: each needs a sample, got {shown} with the validation part from "
            f"{format_time(valid_from, events.clock)} and the test part from {format_time(test_from, events.clock)}"
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
        raise DataError(f"{where}: all {len(labels)} labels are {only}; a part needs both classes")


def _with_padding(entities: Entities) -> FeatureTable:
    one_row = ((0, 1), (0, 0))
    return FeatureTable(np.pad(entities.ids, one_row), np.pad(entities.numbers, one_row))


def _describe(split: Split, clock: Clock | None) -> dict[str, object]:
    counts: dict[str, object] = {
        "rows": len(split),
        "positives": int(split.labels.sum(dtype=np.float64)),
        "users": len(np.unique(split.users)),
    }
    if clock is None:
        return counts
    first, last = int(split.timestamps[0]), int(split.timestamps[-1])
    _, unseen = split.unseen()
    return {
        **counts,
        "unseen_items": {
            "positives": round(float(unseen[split.labels == 1].mean()), 4),
            "negatives": round(float(unseen[split.labels == 0].mean()), 4),
        },
        "first": format_time(first, clock),
        "last": format_time(last, clock),
    }
