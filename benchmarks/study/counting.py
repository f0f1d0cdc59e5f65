"""Counting heuristics: what a history says of a candidate without any learning.

They are the bar that a model of histories has to clear. How often the user had the candidate in the last n events is
what an exact search over a window of n could know; :class:`CountingMemory` says what a table of N x N cells could hold
of all training events, whoever writes and reads it. Every score is one sort of the events and one binary search a
sample, so the whole history costs no more than a window. Scores rank samples and are no probabilities.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmn_model.data.splits import Split

FeatureArray = NDArray[np.integer]
"""Any integer for each item row."""
SMALL = 1e-3
"""Weight of a feature's count beside the item's: it ranks samples that the item's count leaves equal."""


def count_in_history(split: Split, last: int | None = None, feature: int | None = None) -> NDArray[np.float64]:
    """How many of the user's newest events before the sample have the candidate's value.

    Args:
        split: S samples.
        last: n, how many events back to look; None for the whole history.
        feature: column of ``split.tables.items.ids`` that is compared, such as a category; None compares the items
            themselves, and so tells apart those that training has not seen, which share one id.

    Returns:
        float64 ``[S]``, whole numbers from 0 to n.

    Raises:
        ValueError: ``last`` is below 1, or there is no such feature.
    """
    if last is not None and last < 1:
        raise ValueError(f"count_in_history: last must be at least 1 or None, got {last}")
    values = _values(split, feature)  # [R]
    items, starts = _events(split)
    users = _users(starts)
    ends = split.history_ends
    begins = starts[split.users]
    if last is not None:
        begins = np.maximum(ends - last, begins)
    pairs, pair_of = np.unique(_pair(users, values[items], values), return_inverse=True)
    count = len(items)
    # A pair and a position in one sortable integer: events of one pair lie together, oldest first.
    placed = np.sort(pair_of * (count + 1) + np.arange(count))
    asked = _pair(split.users, values[split.items], values)
    place, known = _find(pairs, asked)
    low, high = (np.searchsorted(placed, place * (count + 1) + bound) for bound in (begins, ends))
    return np.where(known, high - low, 0).astype(np.float64)


def count_item_and_feature(split: Split, feature: int, last: int | None = None) -> NDArray[np.float64]:
    """``(count of the candidate + 0.001 count of its feature) / events looked at``, of the newest ``last`` events.

    The item's count decides and the feature's ranks what it leaves equal. The share, unlike the count, does not grow
    with the length of the history, which says more of the user than of the candidate.

    Args:
        split: S samples.
        feature: as in :func:`count_in_history`.
        last: as in :func:`count_in_history`.

    Returns:
        float64 ``[S]``; 0 for an empty history.

    Raises:
        ValueError: as in :func:`count_in_history`.
    """
    counts = count_in_history(split, last) + SMALL * count_in_history(split, last, feature)
    _, starts = _events(split)
    seen = split.history_ends - starts[split.users]  # [S]
    return counts / np.clip(seen, 1, last)


def popularity(split: Split, train: Split) -> NDArray[np.float64]:
    """Number of training-time events of the candidate, whoever the user; float64 ``[S]``.

    Args:
        split: S samples.
        train: the training part of the same data; see :func:`training_events`.
    """
    _, items = training_events(train)
    return np.bincount(items, minlength=len(split.tables.items.ids))[split.items].astype(np.float64)


def training_events(train: Split) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Users and items of the events that training samples see: those before the last training sample of each user.

    Args:
        train: the training part.

    Returns:
        Rows of the users, int64 ``[E]``, and of the items, int32 ``[E]``, by user, then oldest first.
    """
    items, starts = _events(train)
    ends = starts[:-1].copy()  # a user without a training sample has no training-time events
    np.maximum.at(ends, train.users, train.history_ends)
    users = _users(starts)
    seen = np.arange(len(items)) < ends[users]
    return users[seen], items[seen]


class CountingMemory:
    """A table of N user groups by N item groups whose cells count the training-time events.

    Its score is the lift ``(cell + 1) / (expected + 1)``: ``expected`` is what the cell would hold if users and items
    had nothing to do with each other, the product of both groups' totals over the number of events.

    Args:
        train: the training part, which is counted; see :func:`training_events`.
        groups: N, so that the table has N x N cells; None gives each user and each item a group of its own.
        seed: of the groups; users are thrown into theirs independently.
        feature: None throws items into groups the same way. A column of ``train.tables.items.ids`` lays them in the
            order of its values, at random within one, and cuts this order into N equal runs.

    Raises:
        ValueError: ``groups`` is below 1, or there is no such feature.
    """

    def __init__(self, train: Split, groups: int | None = None, *, seed: int = 0, feature: int | None = None) -> None:
        if groups is not None and groups < 1:
            raise ValueError(f"CountingMemory: groups must be at least 1 or None, got {groups}")
        self._user_group, self._item_group = _groups(train, groups, seed, feature)
        users, items = training_events(train)
        self._events = len(items)
        self._user_totals = np.bincount(self._user_group[users], minlength=self._user_group.max(initial=0) + 1)
        self._item_totals = np.bincount(self._item_group[items], minlength=self._item_group.max(initial=0) + 1)
        written = _pair(self._user_group[users], self._item_group[items], self._item_group)
        self._cells, self._counts = np.unique(written, return_counts=True)

    def counts(self, split: Split) -> NDArray[np.float64]:
        """What the cell of each sample holds, float64 ``[S]``."""
        asked = _pair(self._user_group[split.users], self._item_group[split.items], self._item_group)
        place, known = _find(self._cells, asked)
        counts = np.zeros(len(asked))
        counts[known] = self._counts[place[known]]
        return counts

    def expected(self, split: Split) -> NDArray[np.float64]:
        """What the cell of each sample would hold by its groups' totals alone, float64 ``[S]``."""
        user_totals = self._user_totals[self._user_group[split.users]]
        return user_totals * self._item_totals[self._item_group[split.items]] / max(self._events, 1)

    def lift(self, split: Split) -> NDArray[np.float64]:
        """``(cell + 1) / (expected + 1)`` of each sample, float64 ``[S]``; 1 where nothing is known."""
        return (self.counts(split) + 1) / (self.expected(split) + 1)


def _events(split: Split) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Items of all events, int32 ``[E]``, by user, then oldest first, and each user's first position, ``[U + 1]``."""
    histories = split.tables.histories
    return histories.items, histories.starts


def _users(starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of the user of each event, int64 ``[E]``."""
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def _values(split: Split, feature: int | None) -> FeatureArray:
    """For each item row the value that counts compare, ``[R]``."""
    ids = split.tables.items.ids
    if feature is None:
        return np.arange(len(ids))
    if not 0 <= feature < ids.shape[1]:
        raise ValueError(f"feature must be a column of the items' {ids.shape[1]}, got {feature}")
    return ids[:, feature]


def _pair(users: NDArray[np.integer], values: FeatureArray, of: FeatureArray) -> NDArray[np.int64]:
    """User and value, which is one of ``of``, in one integer."""
    return users.astype(np.int64) * (int(of.max(initial=0)) + 1) + values


def _find(known: NDArray[np.int64], asked: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each of ``asked`` is among ``known``, ascending, and whether it is there at all."""
    place = np.searchsorted(known, asked)
    there = place < len(known)
    there[there] = known[place[there]] == asked[there]
    return place, there


def _groups(
    train: Split, groups: int | None, seed: int, feature: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group of each user row and of each item row."""
    user_count, item_count = len(_events(train)[1]) - 1, len(train.tables.items.ids)
    values = _values(train, feature)
    if groups is None:
        return np.arange(user_count), np.arange(item_count)
    random = np.random.default_rng(seed)
    users = random.integers(0, groups, user_count)
    if feature is None:
        return users, random.integers(0, groups, item_count)
    order = np.lexsort((random.permutation(item_count), values))
    items = np.empty(item_count, dtype=np.int64)
    items[order] = np.arange(item_count) * groups // item_count
    return users, items
