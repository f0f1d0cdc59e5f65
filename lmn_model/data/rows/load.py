"""Prepared rows: samples that come with ids, splits and negatives, as click models are compared on.

A folder holds ``train.parquet``, ``valid.parquet`` and ``test.parquet`` with ``label``, ``user_index``, ``item_index``,
``seq_len``, ``user_id`` and context features; ``user_info.parquet``, whose row u lists the items of user u as
``full_item_seq``, oldest first, of which a sample sees the first ``seq_len``; ``item_info.parquet``, whose row i has
the features of item i, row 0 being padding; and perhaps ``feature_map.json`` with the number of ids of each feature.
Every feature is an id; 0 is padding. Samples may have a ``timestamp``, and users as many times as items in
``full_time_seq``: all samples and events then lie on one clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmn_model.data.dataset import SPLITS, Dataset, capped, refuse_one_class
from lmn_model.data.features import CategoricalFeature, FeatureSpec, FeatureTable
from lmn_model.data.histories import Histories
from lmn_model.data.options import DataOptions
from lmn_model.data.rows.features import RowFeatures
from lmn_model.data.rows.files import (
    LABEL,
    USER_ID,
    IdColumns,
    SampleRows,
    read_histories,
    read_items,
    read_samples,
    read_sizes,
)
from lmn_model.data.rows.times import common_clock, refuse_future, refuse_overlapping_times
from lmn_model.data.schema import DataError
from lmn_model.data.search import hard_search
from lmn_model.data.splits import SampleTables, Split

CLOCK = 2**40
"""``Split.timestamps`` of a user's last sample in the training split, without times; each later split adds as much."""
_OPTIONS = ("window", "max_train_rows", "max_eval_rows", "seed", "search_by", "search_window")


def load_rows(
    folder: Path | str, options: DataOptions | None = None, *, vocabularies: RowFeatures | None = None
) -> Dataset:
    """Read prepared rows.

    With times the samples of a split are in their order, and those of one moment in the order of the file.

    Rows without times hold the order of one user's samples, as ``seq_len``, but not of two users' within a split. The
    order of time of a split is then ``seq_len`` as a share of its value at the user's last sample in the split, so that
    no later split has an influence. Rows of one share keep the order of the file. ``Split.timestamps`` is that share
    times 2^40, plus 2^40 for each split before.

    Args:
        folder: where the files are.
        options: ``window``, ``search_by``, ``search_window``, ``max_train_rows`` and ``max_eval_rows`` with ``seed``
            apply; None for the defaults.
        vocabularies: of an earlier run, to score other rows with the same ids.

    Returns:
        The data set, a pure function of files and arguments. ``users`` and ``items`` of its splits are ``user_index``
        and ``item_index``. A user without a sample has no id in the files; with times, so that the user's events can be
        written, it takes the lowest id that no other user has.

    Raises:
        DataError: if a file or a column is missing, a value cannot be, a split holds one class only, a user has two
            ids or a sample of a later split with a shorter history, an option that makes samples of events is given,
            or the rows do not fit ``vocabularies``. With times also if a file has none, two have different clocks or
            units, an event in a history is not before the sample, or a sample is not after all of the earlier splits.
    """
    folder, options = Path(folder), options or DataOptions()
    _refuse_options_of_events(options)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    items = read_items(folder / "item_info.parquet")
    item_count = len(next(iter(items.values())))
    histories, event_times = read_histories(folder / "user_info.parquet", item_count)
    context = None if vocabularies is None else tuple(feature.name for feature in vocabularies.features.context)
    samples: list[SampleRows] = []
    for name in SPLITS:
        samples.append(read_samples(folder / f"{name}.parquet", histories, item_count, context))
        context = tuple(samples[0].context)  # the columns of the first file are those of all
    last = [_last_lengths(rows, len(histories.starts) - 1) for rows in samples]
    clock = common_clock([event_times, *(rows.times for rows in samples)])
    if clock is None:
        _refuse_overlap(samples, last)
    else:
        for rows in samples:
            refuse_future(rows.times, rows.users, rows.lengths, histories)
        refuse_overlapping_times([rows.times for rows in samples])
    known = None if vocabularies is None else vocabularies.features.user[0].size
    user_ids = _user_ids(samples, len(histories.starts) - 1, known, fill=clock is not None)
    largest = _largest_ids([items, {USER_ID: user_ids}, *(rows.context for rows in samples)])
    if vocabularies is None:
        sizes = read_sizes(folder / "feature_map.json")
        vocabularies = RowFeatures(_features(tuple(items), tuple(samples[0].context), largest, sizes), clock)
    else:
        _check_fit(vocabularies.features, tuple(items), largest, folder)
        vocabularies = RowFeatures(vocabularies.features, clock)
    tables = _tables(items, user_ids, histories, samples, vocabularies.features, options)
    splits, first = {}, 0
    for number, (name, rows) in enumerate(zip(SPLITS, samples, strict=True)):
        times = rows.times.values
        if times is None:
            times = number * CLOCK + rows.lengths * CLOCK // np.maximum(last[number][rows.users], 1)
        order = np.argsort(times, kind="stable")
        order = order[capped(np.arange(len(order)), options, number)]
        refuse_one_class(rows.labels[order], f"{rows.path}: column {LABEL!r}")
        splits[name] = Split(
            tables,
            users=rows.users[order].astype(np.int32),
            items=rows.items[order].astype(np.int32),
            events=(first + order).astype(np.int32),
            history_ends=(histories.starts[rows.users] + rows.lengths)[order],
            labels=rows.labels[order],
            timestamps=times[order],
        )
        first += len(rows.labels)
    return Dataset(vocabularies, **splits, event_count=len(histories.items))


def _last_lengths(rows: SampleRows, user_count: int) -> NDArray[np.int64]:
    """The longest history of each user's samples, int64 [U]; 0 for users without."""
    last = np.zeros(user_count, dtype=np.int64)
    np.maximum.at(last, rows.users, rows.lengths)
    return last


def _refuse_overlap(samples: list[SampleRows], last: list[NDArray[np.int64]]) -> None:
    """Raise DataError where a sample comes before one of an earlier split: a memory would hold its future."""
    reached = np.zeros_like(last[0])
    for rows, longest in zip(samples, last, strict=True):
        early = rows.lengths < reached[rows.users]
        if early.any():
            row = int(early.argmax())
            user = rows.users[row]
            raise DataError(
                f"{rows.path}: column 'seq_len': the splits must follow each other in time, but user_index {user} has "
                f"a sample of {rows.lengths[row]} events after one of {reached[user]} in an earlier split"
            )
        reached = np.maximum(reached, longest)


def _tables(
    items: IdColumns,
    user_ids: NDArray[np.int64],
    histories: Histories,
    samples: list[SampleRows],
    features: FeatureSpec,
    options: DataOptions,
) -> SampleTables:
    item_table = _ids_alone(np.column_stack(list(items.values())))
    context = np.empty((sum(len(rows.labels) for rows in samples), len(features.context)), dtype=np.int64)
    for place, feature in enumerate(features.context):
        context[:, place] = np.concatenate([rows.context[feature.name] for rows in samples])
    return SampleTables(
        users=_ids_alone(user_ids[:, None]),
        items=item_table,
        events=_ids_alone(context),
        histories=histories,
        window=options.window,
        search=hard_search(histories, item_table, features, options),
    )


def _ids_alone(ids: NDArray[np.int64]) -> FeatureTable:
    return FeatureTable(ids, np.empty((len(ids), 0), dtype=np.float32))


def _user_ids(samples: list[SampleRows], user_count: int, known: int | None, *, fill: bool) -> NDArray[np.int64]:
    """The id of each user, int64 [U].

    Args:
        samples: of the three splits.
        user_count: U.
        known: number of ids in an earlier run; None without one.
        fill: give users without a sample the lowest ids that no other has, below ``known``; 0 to those who are left.
    """
    ids, without = np.zeros(user_count, dtype=np.int64), np.ones(user_count, dtype=np.bool_)
    for rows in reversed(samples):
        ids[rows.users], without[rows.users] = rows.user_ids, False
    for rows in samples:
        wrong = ids[rows.users] != rows.user_ids
        if wrong.any():
            row = int(wrong.argmax())
            user = rows.users[row]
            raise DataError(
                f"{rows.path}: column {USER_ID!r}: a user has one id, but user_index {user} has {rows.user_ids[row]} "
                f"and {ids[user]}"
            )
    if fill:
        free = np.setdiff1d(np.arange(1, min(user_count + 1, known or user_count + 1)), ids[~without])
        rows_without = np.flatnonzero(without)[: len(free)]
        ids[rows_without] = free[: len(rows_without)]
    return ids


def _largest_ids(tables: Iterable[IdColumns]) -> dict[str, int]:
    """The largest id of each feature in all tables."""
    largest: dict[str, int] = {}
    for table in tables:
        for name, ids in table.items():
            largest[name] = max(largest.get(name, 0), int(ids.max()))
    return largest


def _features(
    item: tuple[str, ...], context: tuple[str, ...], largest: Mapping[str, int], sizes: Mapping[str, int]
) -> FeatureSpec:
    def categorical(*names: str) -> tuple[CategoricalFeature, ...]:
        return tuple(CategoricalFeature(name, max(largest[name] + 1, sizes.get(name, 0))) for name in names)

    # Ids are as the files have them: 1 is a value like any other.
    return FeatureSpec(
        user=categorical(USER_ID), item=categorical(*item), context=categorical(*context), numeric=(), unseen=None
    )


def _check_fit(known: FeatureSpec, item: tuple[str, ...], largest: Mapping[str, int], folder: Path) -> None:
    """Raise DataError unless the items have the features, and all columns the ids, of the rows of training."""
    if item != (wanted := tuple(feature.name for feature in known.item)):
        raise DataError(
            f"{folder}: the item features must be those of training, {', '.join(wanted)}, got {', '.join(item)}"
        )
    for feature in (*known.user, *known.item, *known.context):
        if largest[feature.name] >= feature.size:
            raise DataError(
                f"{folder}: column {feature.name!r}: the ids of training are below {feature.size}, "
                f"got {largest[feature.name]}"
            )


def _refuse_options_of_events(options: DataOptions) -> None:
    for each in fields(options):
        if each.name not in _OPTIONS and getattr(options, each.name) != each.default:
            raise DataError(
                f"{each.name} makes samples of events, but prepared rows are samples already; "
                f"it must stay {each.default!r}, got {getattr(options, each.name)!r}"
            )
