"""Read the files of prepared rows and check every value, so that the rest of the package does not have to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lmn_model.data.events.checks import check_labels
from lmn_model.data.histories import Histories
from lmn_model.data.schema import DataError
from lmn_model.data.tables.header import check_columns
from lmn_model.data.tables.read import read_table
from lmn_model.data.tables.table import Table

LABEL, USER, ITEM, LENGTH = "label", "user_index", "item_index", "seq_len"
USER_ID, HISTORY = "user_id", "full_item_seq"
TIME, TIMES = "timestamp", "full_time_seq"

IdColumns = dict[str, NDArray[np.int64]]
"""Ids of R rows by feature, int64 [R] each."""


@dataclass(frozen=True, eq=False)
class SampleRows:
    """``train.parquet``, ``valid.parquet`` or ``test.parquet`` with S rows in the order of the file.

    Args:
        path: the file, for messages.
        labels: float32 [S], 0 or 1.
        users: int64 [S], each in [0, U).
        items: int64 [S], each in [1, R).
        lengths: int64 [S], how many events of the user's history are past.
        user_ids: int64 [S].
        context: the context features.
    """

    path: Path
    labels: NDArray[np.float32]
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    lengths: NDArray[np.int64]
    user_ids: NDArray[np.int64]
    context: IdColumns


def read_items(path: Path) -> IdColumns:
    """Features of R items in ``item_info.parquet``, the item id first; row 0 is padding and all zeros.

    Raises:
        DataError: if a column is missing or a value cannot be.
    """
    file = _File(path, (ITEM,))
    rows = file.integers(ITEM)
    file.refuse(ITEM, rows, rows != np.arange(len(rows)), "must be the number of its row")
    features = {name: file.integers(name) for name in file.frame.columns if name != ITEM}
    if not features:
        raise DataError(f"{path}: there must be a column with the id of the item besides {ITEM!r}")
    for name, ids in features.items():
        file.refuse(name, ids, ids[:1] != 0, "must be 0, for row 0 is padding")
    if len(rows) < 2:
        raise DataError(f"{path}: there is no item besides the padding in row 0")
    return features


def read_histories(path: Path, item_count: int) -> Histories:
    """The items of each user in ``user_info.parquet``, oldest first.

    Raises:
        DataError: if the column is missing, a value cannot be, or an item is not in [1, item_count).
    """
    file = _File(path, (HISTORY,))
    column = file.frame[HISTORY]
    inner = column.dtype.inner if isinstance(column.dtype, (pl.List, pl.Array)) else None
    if inner == pl.Null:  # all lists are empty
        inner = pl.Int64()
    if inner is None or not inner.is_integer():
        raise DataError(f"{path}: column {HISTORY!r}: it must be lists of integers, got {column.dtype}")
    if count := column.null_count():
        raise DataError(f"{path}: column {HISTORY!r}: a history must not be null, got null in {count} rows")
    lists = column.cast(pl.List(inner))
    lengths = lists.list.len()
    items = file.integers(HISTORY, lists.filter(lengths > 0).explode())
    file.refuse(HISTORY, items, (items < 1) | (items >= item_count), f"must be in [1, {item_count})")
    starts = np.append(0, lengths.to_numpy().astype(np.int64).cumsum())
    return Histories.from_lists(items, starts, padding_item=0)


def read_samples(
    path: Path, histories: Histories, item_count: int, context: tuple[str, ...] | None = None
) -> SampleRows:
    """Read a file of samples.

    Args:
        path: the file.
        histories: of its users.
        item_count: R, rows of the items, padding counted in.
        context: names of the context features; None takes all columns that have no other role.

    Raises:
        DataError: if a column is missing or a value cannot be.
    """
    fixed = (LABEL, USER, ITEM, LENGTH, USER_ID)
    file = _File(path, (*fixed, *(context or ())))
    if context is None:
        context = tuple(name for name in file.frame.columns if name not in (*fixed, TIME))
    try:
        labels = check_labels(Table(file.frame).column(LABEL))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if count := labels.null_count():
        raise DataError(f"{path}: column {LABEL!r}: labels must be 0 or 1, got null in {count} rows")
    users, items, lengths = (file.integers(name) for name in (USER, ITEM, LENGTH))
    user_count = len(histories.starts) - 1
    file.refuse(USER, users, users >= user_count, f"must be below {user_count}, the rows of user_info.parquet")
    file.refuse(ITEM, items, (items < 1) | (items >= item_count), f"must be in [1, {item_count})")
    longer = lengths > np.diff(histories.starts)[users]
    file.refuse(LENGTH, lengths, longer, "must be at most the length of the user's history")
    features = {name: file.integers(name) for name in context}
    return SampleRows(path, labels.to_numpy(), users, items, lengths, file.integers(USER_ID), features)


def read_sizes(path: Path) -> Mapping[str, int]:
    """``vocab_size`` of each categorical feature in ``feature_map.json``; empty if there is no such file.

    Raises:
        DataError: if the file is damaged, or a feature of user or item is not categorical.
    """
    if not path.is_file():
        return {}
    try:
        plain: Any = json.loads(path.read_text(encoding="utf-8"))
        entries = {name: entry for each in plain["features"] for name, entry in each.items()}
        kinds = {name: entry["type"] for name, entry in entries.items()}
        sizes = {name: int(entries[name]["vocab_size"]) for name, kind in kinds.items() if kind == "categorical"}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: the file is damaged: {type(error).__name__}: {error}") from error
    for name, kind in kinds.items():
        if kind not in ("meta", "categorical"):
            raise DataError(f"{path}: feature {name!r}: the type must be 'categorical' or 'meta', got {kind!r}")
    return sizes


class _File:
    """A parquet file that is not empty and has some columns."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path, self.frame = path, read_table(path).frame
        check_columns(self.frame.columns, columns, str(path))
        if self.frame.is_empty():
            raise DataError(f"{path}: the table is empty")

    def integers(self, name: str, values: pl.Series | None = None) -> NDArray[np.int64]:
        """The column ``name``, or ``values`` of it, as integers >= 0."""
        column = self.frame[name] if values is None else values
        if not column.dtype.is_integer():
            raise DataError(f"{self.path}: column {name!r}: it must be integers, got {column.dtype}")
        if count := column.null_count():
            raise DataError(f"{self.path}: column {name!r}: it must not be null, got null in {count} rows")
        if column.dtype == pl.UInt64 and (column > 2**63 - 1).any():
            raise DataError(f"{self.path}: column {name!r}: it must be below 2^63, got {column.max()!r}")
        integers = column.cast(pl.Int64).to_numpy()
        self.refuse(name, integers, integers < 0, "must be at least 0")
        return integers

    def refuse(self, name: str, values: NDArray[np.int64], wrong: NDArray[np.bool_], rule: str) -> None:
        """Raise DataError with ``rule`` and the first value of a mask, unless the mask is all False."""
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(f"{self.path}: column {name!r}: it {rule}, got {values[row]} (the first at {row})")
