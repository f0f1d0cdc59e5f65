"""Prepared rows: samples whose ids, parts and negatives somebody else made, as click models are compared on.

A folder holds ``train.parquet``, ``valid.parquet`` and ``test.parquet`` with ``label``, ``user_index``, ``item_index``,
``seq_len``, ``user_id`` and context features; ``user_info.parquet``, whose row u lists what user u did as
``full_item_seq``, oldest first, of which a sample sees the first ``seq_len``; ``item_info.parquet``, whose row i has
the features of item i, row 0 being padding; and perhaps ``feature_map.json`` with the number of ids of each feature.
Every feature is an id; 0 is padding.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    HistoryRows,
    ItemRows,
    SampleRows,
    read_histories,
    read_items,
    read_samples,
    read_sizes,
)
from lmn_model.data.schema import DataError
from lmn_model.data.search import hard_search
from lmn_model.data.splits import SampleTables, Split

CLOCK = 2**40
"""What a user's clock shows at the user's last sample of the training part; at the last of the validation part twice
as much, and so on."""
_OPTIONS = ("window", "max_train_rows", "max_eval_rows", "seed", "search_by", "search_window")


def load_rows(
    folder: Path | str, options: DataOptions | None = None, *, vocabularies: RowFeatures | None = None
) -> Dataset:
    """Read prepared rows.

    Rows tell the order of one user's samples, by ``seq_len``, but not of two users' within a part. The order of time of
    a split is therefore each user's own clock: ``seq_len`` as a share of what it is at the user's last sample of the
    part, so that no later part has a say. Rows of one share keep the order of the file. ``Split.timestamps`` is that
    share times 2^40, plus 2^40 for each part before.

    Args:
        folder: where the files are.
        options: ``window``, ``search_by``, ``search_window``, ``max_train_rows`` and ``max_eval_rows`` with ``seed``
            apply; None for the defaults.
        vocabularies: of an earlier run, to score other rows with the same ids.

    Returns:
        The data set, a pure function of files and arguments. ``users`` and ``items`` of its splits are ``user_index``
        and ``item_index``.

    Raises:
        DataError: if a file or a column is missing, a value cannot be, a part holds one class only, a user has two
            ids or a sample of a later part with a shorter history, an option that makes samples of events is given, or
            the rows do not fit ``vocabularies``.
    """
    folder, options = Path(folder), options or DataOptions()
    _refuse_options_of_events(options)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    items = read_items(folder / "item_info.parquet")
    lists = read_histories(folder / "user_info.parquet", len(items.ids))
    context = None if vocabularies is None else _names(vocabularies.features.context)
    parts: list[SampleRows] = []
    for name in SPLITS:
        parts.append(read_samples(folder / f"{name}.parquet", lists, len(items.ids), context))
        context = parts[0].context_names  # the columns of the first file are those of all
    largest = _largest_ids(items, parts)
    if vocabularies is None:
        sizes = read_sizes(folder / "feature_map.json")
        vocabularies = RowFeatures(_features(items.names, parts[0].context_names, largest, sizes))
    else:
        _check_fit(vocabularies.features, items.names, largest, folder)
    _refuse_overlap(parts)
    tables = _tables(items, lists, parts, vocabularies.features, options)
    splits: dict[str, Split] = {}
    for part, (name, rows) in enumerate(zip(SPLITS, parts, strict=True)):
        first = sum(len(each.labels) for each in parts[:part])
        clock = part * CLOCK + rows.lengths * CLOCK // np.maximum(_last_lengths(rows)[rows.users], 1)
        order = np.argsort(clock, kind="stable")
        order = order[capped(np.arange(len(order)), options, part)]
        refuse_one_class(rows.labels[order], f"{rows.path}: column {LABEL!r}")
        splits[name] = Split(
            tables,
            users=rows.users[order].astype(np.int32),
            items=rows.items[order].astype(np.int32),
            events=(first + order).astype(np.int32),
            history_ends=(lists.starts[rows.users] + rows.lengths)[order],
            labels=rows.labels[order],
            timestamps=clock[order],
        )
    return Dataset(vocabularies, **splits, event_count=len(lists.items))


def _last_lengths(rows: SampleRows) -> NDArray[np.int64]:
    """The longest history of each user's samples, int64 [U]; 0 for users without."""
    last = np.zeros(int(rows.users.max(initial=-1)) + 1, dtype=np.int64)
    np.maximum.at(last, rows.users, rows.lengths)
    return last


def _refuse_overlap(parts: list[SampleRows]) -> None:
    """Raise DataError where a sample comes before one of an earlier part: a memory would hold its future."""
    reached = np.zeros(1 + max(int(rows.users.max(initial=0)) for rows in parts), dtype=np.int64)
    for rows in parts:
        early = rows.lengths < reached[rows.users]
        if early.any():
            row = int(early.argmax())
            user = rows.users[row]
            raise DataError(
                f"{rows.path}: column 'seq_len': the parts must follow each other in time, but user_index {user} has "
                f"a sample of {rows.lengths[row]} events after one of {reached[user]} in an earlier part"
            )
        last = _last_lengths(rows)
        np.maximum(reached[: len(last)], last, out=reached[: len(last)])


def _tables(
    items: ItemRows, lists: HistoryRows, parts: list[SampleRows], features: FeatureSpec, options: DataOptions
) -> SampleTables:
    histories = Histories.from_lists(lists.items, lists.starts, padding_item=0)
    item_table = _ids_alone(items.ids)
    return SampleTables(
        users=_ids_alone(_user_ids(parts, len(lists.starts) - 1)),
        items=item_table,
        events=_ids_alone(np.concatenate([rows.context for rows in parts])),
        histories=histories,
        window=options.window,
        search=hard_search(histories, item_table, features, options),
    )


def _ids_alone(ids: NDArray[np.int64]) -> FeatureTable:
    return FeatureTable(ids, np.empty((len(ids), 0), dtype=np.float32))


def _user_ids(parts: list[SampleRows], user_count: int) -> NDArray[np.int64]:
    """The id of each user, int64 [U, 1]; 0 for a user without a sample."""
    ids = np.zeros(user_count, dtype=np.int64)
    for rows in reversed(parts):
        ids[rows.users] = rows.user_ids
    for rows in parts:
        wrong = ids[rows.users] != rows.user_ids
        if wrong.any():
            row = int(wrong.argmax())
            user = rows.users[row]
            raise DataError(
                f"{rows.path}: column {USER_ID!r}: a user has one id, but user_index {user} has {rows.user_ids[row]} "
                f"and {ids[user]}"
            )
    return ids[:, None]


def _names(features: tuple[CategoricalFeature, ...]) -> tuple[str, ...]:
    return tuple(feature.name for feature in features)


def _largest_ids(items: ItemRows, parts: list[SampleRows]) -> dict[str, int]:
    """The largest id of each feature in all files."""
    largest = {name: int(column.max()) for name, column in zip(items.names, items.ids.T, strict=True)}
    largest[USER_ID] = max(int(rows.user_ids.max()) for rows in parts)
    for place, name in enumerate(parts[0].context_names):
        largest[name] = max(int(rows.context[:, place].max()) for rows in parts)
    return largest


def _features(
    item: tuple[str, ...], context: tuple[str, ...], largest: Mapping[str, int], sizes: Mapping[str, int]
) -> FeatureSpec:
    def categorical(names: tuple[str, ...]) -> tuple[CategoricalFeature, ...]:
        return tuple(CategoricalFeature(name, max(largest[name] + 1, sizes.get(name, 0))) for name in names)

    # Ids are as the files have them: 1 is a value like any other.
    return FeatureSpec(
        user=categorical((USER_ID,)), item=categorical(item), context=categorical(context), numeric=(), unseen=None
    )


def _check_fit(known: FeatureSpec, item: tuple[str, ...], largest: Mapping[str, int], folder: Path) -> None:
    """Raise DataError unless the items have the features, and all columns the ids, of the rows of training."""
    if item != _names(known.item):
        wanted = ", ".join(_names(known.item))
        raise DataError(f"{folder}: the item features must be those of training, {wanted}, got {', '.join(item)}")
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
