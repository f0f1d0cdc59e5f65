"""Counting heuristics: rankings by counts of a user's events, without training.

A model of histories should beat them. :func:`count_in_history` is what an exact search over the user's last n events
can find. :class:`CooccurrenceCounts` is what a table of N x N counts can hold of all training events. Every score takes
one sort of the events and one binary search a sample, so the whole history costs no more than a window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmn_model.data.splits import Split

IntArray = NDArray[np.integer]
SMALL = 1e-3
"""Weight of a feature's count beside the item's: it ranks samples that the item's count leaves equal."""


def count_in_history(split: Split, last: int | None = None, feature: int | None = None) -> NDArray[np.float64]:
    """How many of the user's newest events before the sample have the candidate's value.

    Args:
        split: S samples.
        last: n, how many of the newest events to count; None for the whole history.
        feature: column of ``split.tables.items.ids`` that is compared, such as a category; None compares the items
            themselves, and so separates those that training has not seen, which share one id.

    Returns:
        float64 ``[S]``, whole numbers from 0 to n.

    Raises:
        ValueError: ``last`` is below 1, or there is no such feature.
    """
    if last is not None and last < 1:
        raise ValueError(f"count_in_history: last must be at least 1 or None, got {last}")
    values = _values(split, feature)  # [R]
    items, starts = _events(split)
    begins, ends = starts[split.users], split.history_ends
    if last is not None:
        begins = np.maximum(ends - last, begins)
    pairs, pair_of = np.unique(_pair(_users(starts), values[items], values), return_inverse=True)
    # A pair and a position in one sortable integer: events of one pair lie together, oldest first.
    count = len(items)
    placed = np.sort(pair_of * (count + 1) + np.arange(count))
    place, is_known = _find(pairs, _pair(split.users, values[split.items], values))
    low, high = (np.searchsorted(placed, place * (count + 1) + bound) for bound in (begins, ends))
    return np.where(is_known, high - low, 0).astype(np.float64)


def count_item_and_feature(split: Split, feature: int, last: int | None = None) -> NDArray[np.float64]:
    """``(count of the candidate + 0.001 count of its feature) / events counted``, of the newest ``last`` events.

    The item's count decides, and the feature's ranks what it leaves equal. A count grows with the length of the
    history, which depends on the user and not on the candidate; the share does not.

    Arguments and errors are those of :func:`count_in_history`; float64 ``[S]``, 0 for an empty history.
    """
    counts = count_in_history(split, last) + SMALL * count_in_history(split, last, feature)
    seen = split.history_ends - _events(split)[1][split.users]  # [S]
    return counts / np.clip(seen, 1, last)


def popularity(split: Split, train: Split) -> NDArray[np.float64]:
    """Number of :func:`training_events` of the candidate, whoever the user; float64 ``[S]``."""
    _, items = training_events(train)
    return np.bincount(items, minlength=len(split.tables.items.ids))[split.items].astype(np.float64)


def training_events(train: Split) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Users and items of the events that training samples see: those before the last training sample of each user.

    Returns:
        Rows of the users, int64 ``[E]``, and of the items, int32 ``[E]``, by user, then oldest first.
    """
    items, starts = _events(train)
    ends = starts[:-1].copy()  # a user without a training sample has no training-time events
    np.maximum.at(ends, train.users, train.history_ends)
    users = _users(starts)
    is_seen = np.arange(len(items)) < ends[users]
    return users[is_seen], items[is_seen]


class CooccurrenceCounts:
    """Training-time events counted in a table of N user groups by N item groups.

    The score of a sample is the lift ``(count + 1) / (expected + 1)`` of its two groups: ``expected`` is the count that
    independent users and items would give, the product of both groups' totals over the number of events.

    Args:
        train: the training split, which is counted; see :func:`training_events`.
        groups: N; None gives each user and each item a group of its own.
        seed: of the groups; users are assigned at random.
        feature: None assigns items at random too. A column of ``train.tables.items.ids`` orders them by its values, at
            random within one, and cuts this order into N equal runs.

    Raises:
        ValueError: ``groups`` is below 1, or there is no such feature.
    """

    def __init__(self, train: Split, groups: int | None = None, *, seed: int = 0, feature: int | None = None) -> None:
        if groups is not None and groups < 1:
            raise ValueError(f"CooccurrenceCounts: groups must be at least 1 or None, got {groups}")
        self.user_group, self.item_group = _groups(train, groups, seed, feature)
        users, items = training_events(train)
        self._events = len(items)
        self._user_totals = np.bincount(self.user_group[users], minlength=self.user_group.max(initial=0) + 1)
        self._item_totals = np.bincount(self.item_group[items], minlength=self.item_group.max(initial=0) + 1)
        self._pairs, self._counts = np.unique(self._pair_of(users, items), return_counts=True)

    def counts(self, split: Split) -> NDArray[np.float64]:
        """The count of each sample's groups, float64 ``[S]``."""
        place, is_known = _find(self._pairs, self._pair_of(split.users, split.items))
        counts = np.zeros(len(place))
        counts[is_known] = self._counts[place[is_known]]
        return counts

    def expected(self, split: Split) -> NDArray[np.float64]:
        """The count of each sample's groups if users and items were independent, float64 ``[S]``."""
        user_totals = self._user_totals[self.user_group[split.users]]
        return user_totals * self._item_totals[self.item_group[split.items]] / max(self._events, 1)

    def lift(self, split: Split) -> NDArray[np.float64]:
        """``(count + 1) / (expected + 1)`` of each sample, float64 ``[S]``; 1 where no event was counted."""
        return (self.counts(split) + 1) / (self.expected(split) + 1)

    def _pair_of(self, users: IntArray, items: IntArray) -> NDArray[np.int64]:
        return _pair(self.user_group[users], self.item_group[items], self.item_group)


def _events(split: Split) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Items of all events, int32 ``[E]``, by user, then oldest first, and each user's first position, ``[U + 1]``."""
    histories = split.tables.histories
    return histories.items, histories.starts


def _users(starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of the user of each event, int64 ``[E]``."""
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def _values(split: Split, feature: int | None) -> IntArray:
    """For each item row the value that counts compare, ``[R]``."""
    ids = split.tables.items.ids
    if feature is None:
        return np.arange(len(ids))
    if not 0 <= feature < ids.shape[1]:
        raise ValueError(f"feature must be a column of the items' {ids.shape[1]}, got {feature}")
    return ids[:, feature]


def _pair(users: IntArray, values: IntArray, of: IntArray) -> NDArray[np.int64]:
    """User and value, which is one of ``of``, in one integer."""
    return users.astype(np.int64) * (int(of.max(initial=0)) + 1) + values


def _find(known: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Position of each of ``wanted`` in ``known``, which ascends, and whether it is there at all."""
    place = np.searchsorted(known, wanted)
    is_there = place < len(known)
    is_there[is_there] = known[place[is_there]] == wanted[is_there]
    return place, is_there


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
    items = np.empty(item_count, dtype=np.int64)
    items[np.lexsort((random.permutation(item_count), values))] = np.arange(item_count) * groups // item_count
    return users, items
