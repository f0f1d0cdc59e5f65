"""Counting heuristics against loops over events."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from benchmarks.study.counting import (
    CooccurrenceCounts,
    count_in_history,
    count_item_and_feature,
    popularity,
    training_events,
)
from lmn_model.data.features import FeatureTable
from lmn_model.data.histories import Histories
from lmn_model.data.splits import SampleTables, Split

USERS, ITEMS, CATEGORIES = 6, 9, 4
PADDING = ITEMS


def make_tables(events: int = 80, seed: int = 0) -> tuple[SampleTables, list[list[int]]]:
    """Tables with two item features, the id and a category; user 2 has none. And each user's events."""
    random = np.random.default_rng(seed)
    users = random.integers(0, USERS - 1, events)
    users[users >= 2] += 1
    items, times = random.integers(0, ITEMS, events), np.arange(events)
    categories = random.integers(2, 2 + CATEGORIES, ITEMS)
    ids = np.stack((np.arange(ITEMS) + 2, categories), axis=1)
    ids[3:5, 0] = 1  # two items that training has not seen share an id
    ids = np.append(ids, [[0, 0]], axis=0)
    histories = Histories(users, items, times, user_count=USERS, padding_item=PADDING)

    def table(rows: np.ndarray) -> FeatureTable:
        return FeatureTable(rows, np.zeros((len(rows), 0), np.float32))

    tables = SampleTables(
        users=table(np.arange(USERS)[:, None]),
        items=table(ids),
        events=table(np.zeros((1, 0), np.int64)),
        histories=histories,
        window=3,
    )
    return tables, [items[users == user].tolist() for user in range(USERS)]


def make_split(tables: SampleTables, samples: list[tuple[int, int, int]]) -> Split:
    """Samples of (user, item, number of the user's events that it sees)."""
    users, items, seen = (np.array(column, dtype=np.int64) for column in zip(*samples, strict=True))
    starts = tables.histories.ends(users, np.full(len(users), np.iinfo(np.int64).min))
    return Split(
        tables=tables,
        users=users.astype(np.int32),
        items=items.astype(np.int32),
        events=np.zeros(len(users), np.int32),
        history_ends=starts + seen,
        labels=np.zeros(len(users), np.float32),
        timestamps=np.zeros(len(users), np.int64),
    )


def every_sample(lists: list[list[int]]) -> list[tuple[int, int, int]]:
    """Each user, item and length of history."""
    return [
        (user, item, seen)
        for user, events in enumerate(lists)
        for item in range(ITEMS)
        for seen in range(len(events) + 1)
    ]


def seen_by(lists: list[list[int]], user: int, seen: int, last: int | None) -> list[int]:
    events = lists[user][:seen]
    return events if last is None else events[-last:]


@pytest.mark.parametrize("last", [1, 3, 7, 1000, None])
@pytest.mark.parametrize("feature", [None, 0, 1])
def test_counts_are_the_loops(last: int | None, feature: int | None) -> None:
    tables, lists = make_tables()
    samples = every_sample(lists)

    def value(item: int) -> int:
        return item if feature is None else int(tables.items.ids[item, feature])

    expected = [
        sum(value(each) == value(item) for each in seen_by(lists, user, seen, last)) for user, item, seen in samples
    ]
    counts = count_in_history(make_split(tables, samples), last, feature)
    assert counts.dtype == np.float64
    assert counts.tolist() == expected
    assert max(expected) > 0


def test_items_that_training_has_not_seen_differ_unless_compared_by_id() -> None:
    tables, lists = make_tables()
    split = make_split(tables, every_sample(lists))
    own, by_id = count_in_history(split), count_in_history(split, feature=0)
    unseen = np.isin(split.items, [3, 4])
    assert (by_id[unseen] >= own[unseen]).all()
    assert (by_id[unseen] > own[unseen]).any()
    assert (by_id[~unseen] == own[~unseen]).all()


@pytest.mark.parametrize("last", [2, 5, None])
def test_item_and_feature_is_a_share_of_the_events_looked_at(last: int | None) -> None:
    tables, lists = make_tables()
    samples = every_sample(lists)
    expected = []
    for user, item, seen in samples:
        events = seen_by(lists, user, seen, last)
        alike = sum(tables.items.ids[each, 1] == tables.items.ids[item, 1] for each in events)
        expected.append((events.count(item) + 0.001 * alike) / max(len(events), 1))
    np.testing.assert_allclose(count_item_and_feature(make_split(tables, samples), 1, last), expected, rtol=1e-14)


def last_training_lengths(samples: list[tuple[int, int, int]]) -> dict[int, int]:
    return {user: max(seen for each, _, seen in samples if each == user) for user, _, _ in samples}


TRAINING = [(0, 1, 2), (0, 5, 9), (0, 2, 4), (1, 1, 3), (2, 1, 0), (4, 0, 1)]  # users 3 and 5 have no sample


def test_training_events_are_those_before_the_last_sample() -> None:
    tables, lists = make_tables()
    users, items = training_events(make_split(tables, TRAINING))
    expected = [
        (user, item) for user, seen in sorted(last_training_lengths(TRAINING).items()) for item in lists[user][:seen]
    ]
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == expected
    assert len(expected) == 13


def test_popularity_counts_training_events() -> None:
    tables, lists = make_tables()
    _, items = training_events(make_split(tables, TRAINING))
    samples = every_sample(lists)
    counts = Counter(items.tolist())
    assert popularity(make_split(tables, samples), make_split(tables, TRAINING)).tolist() == [
        counts[item] for _, item, _ in samples
    ]


@pytest.mark.parametrize("feature", [None, 1])
@pytest.mark.parametrize("groups", [1, 2, 3, 50, None])
def test_counts_and_lift_are_those_of_the_groups(groups: int | None, feature: int | None) -> None:
    tables, lists = make_tables()
    train, split = make_split(tables, TRAINING), make_split(tables, every_sample(lists))
    table = CooccurrenceCounts(train, groups, seed=4, feature=feature)
    user_group, item_group = table.user_group.tolist(), table.item_group.tolist()
    assert max(user_group + item_group) < (groups or USERS + ITEMS)
    counts: Counter[tuple[int, int]] = Counter()
    for user, item in zip(*training_events(train), strict=True):
        counts[user_group[user], item_group[item]] += 1
    events = sum(counts.values())
    for place, (user, item) in enumerate(zip(split.users, split.items, strict=True)):
        group, other = user_group[user], item_group[item]
        total = sum(count for (row, _), count in counts.items() if row == group)
        expected = total * sum(count for (_, column), count in counts.items() if column == other) / events
        assert table.counts(split)[place] == counts[group, other]
        assert table.expected(split)[place] == pytest.approx(expected)
        assert table.lift(split)[place] == pytest.approx((counts[group, other] + 1) / (expected + 1))


def test_own_groups_count_the_pairs() -> None:
    tables, lists = make_tables()
    samples = every_sample(lists)
    lengths = last_training_lengths(TRAINING)
    expected = [lists[user][: lengths.get(user, 0)].count(item) for user, item, _ in samples]
    assert CooccurrenceCounts(make_split(tables, TRAINING)).counts(make_split(tables, samples)).tolist() == expected


def test_groups_by_feature_are_runs_of_its_order_of_one_size() -> None:
    tables, _ = make_tables()
    table = CooccurrenceCounts(make_split(tables, TRAINING), 5, feature=1)
    sizes = np.bincount(table.item_group)
    assert sizes.tolist() == [2] * 5  # nine items and the padding
    values = tables.items.ids[:, 1]
    ordered = [values[table.item_group == group] for group in range(5)]
    assert all(low.max() <= high.min() for low, high in pairwise(ordered))


def test_groups_follow_the_seed() -> None:
    tables, _ = make_tables()
    train = make_split(tables, TRAINING)
    groups = [CooccurrenceCounts(train, 100, seed=seed).item_group.tolist() for seed in (1, 1, 2)]
    assert groups[0] == groups[1]
    assert groups[0] != groups[2]


def test_no_samples_and_no_events() -> None:
    tables, lists = make_tables(events=0)
    assert lists == [[]] * USERS
    split = make_split(tables, [(0, 1, 0), (5, 2, 0)])
    assert count_in_history(split).tolist() == [0, 0]
    assert count_item_and_feature(split, 1).tolist() == [0, 0]
    assert CooccurrenceCounts(split, 4).lift(split).tolist() == [1, 1]
    full, _ = make_tables()
    train = make_split(full, TRAINING)
    none = Split(
        full, *(values[:0] for values in (train.users, train.items, train.events)), *[train.history_ends[:0]] * 3
    )
    assert count_in_history(none).shape == (0,)
    assert CooccurrenceCounts(none, 4).lift(train).tolist() == [1] * len(train)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda split: count_in_history(split, 0), "last must be at least 1 or None, got 0"),
        (lambda split: count_in_history(split, feature=2), "feature must be a column of the items' 2, got 2"),
        (lambda split: CooccurrenceCounts(split, 0), "groups must be at least 1 or None, got 0"),
        (lambda split: CooccurrenceCounts(split, 3, feature=-1), "feature must be a column of the items' 2, got -1"),
    ],
)
def test_arguments_out_of_range(call: object, message: str) -> None:
    tables, _ = make_tables()
    with pytest.raises(ValueError, match=message):
        call(make_split(tables, TRAINING))  # type: ignore[operator]
