"""Read the files of prepared rows and check every value, so that nothing behind has to."""

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
from lmn_model.data.schema import DataError
from lmn_model.data.tables.header import check_columns
from lmn_model.data.tables.read import read_table
from lmn_model.data.tables.table import Table

LABEL, USER, ITEM, LENGTH, USER_ID, HISTORY = (
    "label",
    "user_index",
    "item_index",
    "seq_len",
    "user_id",
    "full_item_seq",
)
_META = (LABEL, USER, ITEM, LENGTH)


@dataclass(frozen=True, eq=False)
class ItemRows:
    """``item_info.parquet``.

    Args:
        names: the features of an item; the first is the item id.
        ids: int64 [R, F_i]; row 0 is padding and all zeros.
    """

    names: tuple[str, ...]
    ids: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class HistoryRows:
    """``user_info.parquet``: the items of each user, oldest first, one user after the other.

    Args:
        items: int64 [E], each in [1, R).
        starts: int64 [U + 1], where each user's items begin, and E.
    """

    items: NDArray[np.int64]
    starts: NDArray[np.int64]


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
        context_names: the context features.
        context: int64 [S, F_c].
    """

    path: Path
    labels: NDArray[np.float32]
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    lengths: NDArray[np.int64]
    user_ids: NDArray[np.int64]
    context_names: tuple[str, ...]
    context: NDArray[np.int64]


def read_items(path: Path) -> ItemRows:
    """Read ``item_info.parquet``; raise DataError for a value that cannot be."""
    frame = _read(path, (ITEM,))
    places = _whole(frame, ITEM, path)
    _refuse_first(places != np.arange(len(places)), places, path, ITEM, "must be the number of its row")
    names = tuple(name for name in frame.columns if name != ITEM)
    if not names:
        raise DataError(f"{path}: there must be a column with the id of the item besides {ITEM!r}")
    ids = np.column_stack([_whole(frame, name, path) for name in names])
    for name, column in zip(names, ids.T, strict=True):
        _refuse_first(column[:1] != 0, column, path, name, "must be 0, for row 0 is padding")
    if len(ids) < 2:
        raise DataError(f"{path}: there is no item besides the padding in row 0")
    return ItemRows(names, ids)


def read_histories(path: Path, item_count: int) -> HistoryRows:
    """Read ``user_info.parquet``; raise DataError for a value that cannot be, or an item not in [1, item_count)."""
    column = _read(path, (HISTORY,))[HISTORY]
    inner = column.dtype.inner if isinstance(column.dtype, (pl.List, pl.Array)) else None
    if inner == pl.Null:  # no list holds anything
        inner = pl.Int64()
    if inner is None or not inner.is_integer():
        raise DataError(f"{path}: column {HISTORY!r}: it must be lists of integers, got {column.dtype}")
    if count := column.null_count():
        raise DataError(f"{path}: column {HISTORY!r}: a history must not be null, got null in {count} rows")
    lists = column.cast(pl.List(inner))
    starts = np.append(0, lists.list.len().to_numpy().astype(np.int64).cumsum())
    items = lists.filter(lists.list.len() > 0).explode().rename(HISTORY)
    flat = _whole(items.to_frame(), HISTORY, path)
    _refuse_first((flat < 1) | (flat >= item_count), flat, path, HISTORY, f"must be in [1, {item_count})")
    return HistoryRows(flat, starts)


def read_samples(
    path: Path, histories: HistoryRows, item_count: int, context_names: tuple[str, ...] | None = None
) -> SampleRows:
    """Read a file of samples.

    Args:
        path: the file.
        histories: of its users.
        item_count: R, rows of the items, padding counted in.
        context_names: the context features; None takes all columns that play no other part.

    Raises:
        DataError: if a column is missing or a value cannot be.
    """
    frame = _read(path, (*_META, USER_ID, *(context_names or ())))
    if context_names is None:
        context_names = tuple(name for name in frame.columns if name not in (*_META, USER_ID))
    try:
        labels = check_labels(Table(frame).column(LABEL))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if count := labels.null_count():
        raise DataError(f"{path}: column {LABEL!r}: labels must be 0 or 1, got null in {count} rows")
    users, items, lengths = (_whole(frame, name, path) for name in (USER, ITEM, LENGTH))
    user_count = len(histories.starts) - 1
    _refuse_first(users >= user_count, users, path, USER, f"must be below {user_count}, the rows of user_info.parquet")
    _refuse_first((items < 1) | (items >= item_count), items, path, ITEM, f"must be in [1, {item_count})")
    most = np.diff(histories.starts)[users]
    _refuse_first(lengths > most, lengths, path, LENGTH, "must be at most the length of the user's history")
    columns = [_whole(frame, name, path) for name in context_names]
    context = np.column_stack(columns) if columns else np.empty((len(users), 0), dtype=np.int64)
    user_ids = _whole(frame, USER_ID, path)
    return SampleRows(path, labels.to_numpy(), users, items, lengths, user_ids, context_names, context)


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


def _read(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    frame = read_table(path).frame
    check_columns(frame.columns, columns, str(path))
    if frame.is_empty():
        raise DataError(f"{path}: the table is empty")
    return frame


def _whole(frame: pl.DataFrame, name: str, path: Path) -> NDArray[np.int64]:
    """A column of integers >= 0."""
    column = frame[name]
    if not column.dtype.is_integer():
        raise DataError(f"{path}: column {name!r}: it must be integers, got {column.dtype}")
    if count := column.null_count():
        raise DataError(f"{path}: column {name!r}: it must not be null, got null in {count} rows")
    if column.dtype == pl.UInt64 and (column > 2**63 - 1).any():
        raise DataError(f"{path}: column {name!r}: it must be below 2^63, got {column.max()}")
    values = column.cast(pl.Int64).to_numpy()
    _refuse_first(values < 0, values, path, name, "must be at least 0")
    return values


def _refuse_first(wrong: NDArray[np.bool_], values: NDArray[np.int64], path: Path, name: str, rule: str) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{path}: column {name!r}: it {rule}, got {values[row]} (the first at {row})")
