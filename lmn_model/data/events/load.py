"""Splits for training, validation and test from one event table, cut by time.

A sample may rest only on what came strictly before it. So splits are cut by time and never through one timestamp; ids,
scales and popularity come from the training split alone; and histories end strictly before the sample.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.clocks import format_time, parse_time
from lmn_model.data.dataset import SPLITS, Dataset, capped
from lmn_model.data.events.event_table import Events, check_events
from lmn_model.data.events.samples import EventSamples
from lmn_model.data.events.vocabularies import Vocabularies
from lmn_model.data.options import DataOptions
from lmn_model.data.schema import DataError, Schema
from lmn_model.data.splits import Split
from lmn_model.data.tables.table import Table, as_table, column_of
from lmn_model.wording import shown


def load_dataset(
    table: Table | pl.DataFrame | Events,
    schema: Schema,
    options: DataOptions | None = None,
    *,
    vocabularies: Vocabularies | None = None,
    open_ids: bool = True,
) -> Dataset:
    """Make samples of an event table.

    Every labelled event is a sample. Without labels every event is a positive, followed by its sampled negatives, which
    have its user, time, context and history.

    Args:
        table: the events, in any order; with ``vocabularies`` also as :func:`events_of_run` gives them.
        schema: names of its columns.
        options: how samples are made; None for the defaults.
        vocabularies: of an earlier run, to score other events under its ids; None learns them from the training split.
        open_ids: without ``vocabularies``, give each value that the training split does not hold an id of its own, see
            :func:`lmn_model.data.features.open_id`; False gives all of them one and no features of the user's earlier
            labels, as releases before 0.2 did.

    Returns:
        The data set, a pure function of the arguments.

    Raises:
        DataError: if the table fails a check (see ``check_events``), a split is empty or holds one class only, the
            training split has a single item to draw negatives from, or the table does not fit ``vocabularies``.
    """
    options = options or DataOptions()
    if vocabularies is None:
        if isinstance(table, Events):
            raise TypeError("load_dataset: events that are checked already need vocabularies")
        events = check_events(as_table(table), schema)
    else:
        events = table if isinstance(table, Events) else events_of_run(table, schema, vocabularies)
    rows, cuts = _sample_rows(events, schema), _cuts(events, schema, options)
    if vocabularies is None:
        rates = options.user_rates and open_ids
        vocabularies = Vocabularies.fit(
            events, schema, int(cuts[1]), options.min_item_count, open_ids=open_ids, user_rates=rates
        )
    else:
        vocabularies = vocabularies.extended(events.frame)
    samples = EventSamples(events, vocabularies, options, popular_rows=int(cuts[1]))
    splits = {}
    for number, name in enumerate(SPLITS):
        inside = rows[slice(*np.searchsorted(rows, cuts[number : number + 2]))]
        splits[name] = samples.split(capped(inside, options, number), number, f"{name} split")
    return Dataset(vocabularies, **splits, event_count=events.frame.height)


def load_samples(
    events: Events, options: DataOptions, vocabularies: Vocabularies, *, earlier: Events | None = None
) -> Split:
    """All samples of an event table as one split, under the ids of an earlier run.

    Args:
        events: from :func:`events_of_run`.
        options: how samples are made; the fractions and moments of the splits do not apply.
        vocabularies: of the run.
        earlier: events before those of ``events``, which enter histories and are no samples.

    Raises:
        DataError: if there is no sample, or all have one class.
    """
    rows = _sample_rows(events, vocabularies.schema)
    if earlier is not None:
        rows += earlier.frame.height
        events = replace(events, frame=pl.concat([earlier.frame, events.frame]))
    known = vocabularies.extended(events.frame)
    samples = EventSamples(events, known, options, popular_rows=events.frame.height)
    number = len(SPLITS)  # other random draws than those of a split of the run
    return samples.split(capped(rows, options, number), number, "the samples")


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


def _sample_rows(events: Events, schema: Schema) -> NDArray[np.intp]:
    """Rows of the events that are samples, one at least."""
    rows = np.flatnonzero(events.samples(schema))
    if not len(rows):
        raise DataError(f"column {shown(schema.label)}: every label is null, so there is no sample")
    return rows


def _cuts(events: Events, schema: Schema, options: DataOptions) -> NDArray[np.intp]:
    """The rows at which the splits begin, and the number of events, [4]."""
    times, rows = events.times(schema), _sample_rows(events, schema)
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
    # All events of one moment are in the later split: a cut through a basket would leak one half of it into the other.
    cuts = np.array([0, *np.searchsorted(times, [valid_from, test_from]), len(times)])
    counts = np.diff(np.searchsorted(rows, cuts))
    if counts.min() == 0:
        found = ", ".join(f"{name} {count}" for name, count in zip(SPLITS, counts, strict=True))
        raise DataError(
            f"splits: each needs a sample, got {found} with the validation split from "
            f"{format_time(valid_from, events.clock)} and the test split from {format_time(test_from, events.clock)}"
        )
    return cuts
