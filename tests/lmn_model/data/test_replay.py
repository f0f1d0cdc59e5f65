"""New events by the calendar: each once and in time, whatever the ties, and no batch changes with what comes later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from batch_fields import same
from events_factory import make_events
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rows_factory import SPLITS, make_rows, make_timed_rows, write_rows

from lmn_model.data import (
    Batch,
    BatchLoader,
    DataOptions,
    Dataset,
    Schema,
    Split,
    load_dataset,
    load_rows,
    prepare_pairs,
)
from lmn_model.data.features import FeatureTable
from lmn_model.data.histories import Histories
from lmn_model.data.splits import SampleTables

USERS = 4
SCHEMA = Schema(item_features=("category",), context_features=("hour",), label="label")


def small_splits(events: list[tuple[int, int]], samples: list[list[tuple[int, int]]]) -> list[Split]:
    """Splits of samples (user, time), in the order of time, over events (user, time); event e has item e.

    User u has id 10 + u.
    """
    users, times = (np.array([event[place] for event in events], dtype=np.int64) for place in (0, 1))
    histories = Histories(users, np.arange(len(events)), times, user_count=USERS, padding_item=len(events))

    def table(ids: Any) -> FeatureTable:
        return FeatureTable(np.array(ids, dtype=np.int64)[:, None], np.empty((len(ids), 0), dtype=np.float32))

    tables = SampleTables(table(range(10, 10 + USERS)), table(range(len(events) + 1)), table([0]), histories, window=2)
    found: list[Split] = []
    for part in samples:
        part = sorted(part, key=lambda sample: sample[1])
        owners, moments = (np.array([sample[place] for sample in part], dtype=np.int64) for place in (0, 1))
        zeros = np.zeros(len(part), dtype=np.int32)
        split = Split(
            tables, owners.astype(np.int32), zeros, zeros, histories.ends(owners, moments),
            zeros.astype(np.float32), moments,
        )  # fmt: skip
        found.append(split.following(found[-1]) if found else split)
    return found


def carried(batch: Batch) -> list[int]:
    return batch.new_items[:, 0].tolist()


EVENTS = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, 12)), max_size=25)


def parts(low: int, high: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Samples of two of the four users, several at one moment."""
    return st.lists(st.tuples(st.integers(1, 2), st.integers(low, high)), min_size=1, max_size=9)


@given(EVENTS, st.tuples(parts(0, 4), parts(5, 8), parts(9, 12)), st.integers(1, 10))
@hypothesis_settings(max_examples=200, deadline=None)
def test_each_event_is_carried_once_and_is_before_every_later_sample(
    events: list[tuple[int, int]], samples: tuple[list[tuple[int, int]], ...], batch_size: int
) -> None:
    seen: list[int] = []
    for split in small_splits(events, list(samples)):
        batches = list(BatchLoader(split, batch_size, new_events=True, prefetch=0))
        moments = [split.timestamps[first : first + batch_size] for first in range(0, len(split), batch_size)]
        for number, batch in enumerate(batches):
            assert all(events[event][1] < moments[number].min() for event in seen), "a read is before its writes"
            here = carried(batch)
            assert here == sorted(here, key=lambda event: events[event][1])
            assert batch.new_users.tolist() == [10 + events[event][0] for event in here]
            seen += here
            last = number == len(batches) - 1
            due = {
                e
                for e, (_, time) in enumerate(events)
                if time < (moments[-1][-1] + 1 if last else moments[number + 1][0])
            }
            assert set(seen) == due, "events of all users are carried as time passes"
            assert len(seen) == len(due), "once"
        rest = list(BatchLoader(split, batch_size, new_events=True, start=len(batches) // 2))
        assert all(same(left, right) for left, right in zip(rest, batches[len(batches) // 2 :], strict=True))


def test_events_of_one_moment_keep_the_order_of_users_and_of_each_user() -> None:
    (split,) = small_splits([(2, 5), (0, 5), (2, 5), (1, 4), (0, 5)], [[(1, 3), (1, 6)]])
    first, second = BatchLoader(split, 1, new_events=True)
    assert (carried(first), carried(second)) == ([3, 1, 4, 0, 2], [])
    assert first.new_users.tolist() == [11, 10, 10, 12, 12]


def test_a_pass_after_other_splits_begins_where_they_end() -> None:
    events = [(0, time) for time in range(10)]
    train, valid, test = small_splits(events, [[(1, 2), (1, 3)], [(1, 5)], [(1, 7), (1, 8)]])
    assert [carried(batch) for batch in BatchLoader(train, 1, new_events=True)] == [[0, 1, 2], [3]]
    assert [carried(batch) for batch in BatchLoader(valid, 1, new_events=True)] == [[4, 5]]
    assert [carried(batch) for batch in BatchLoader(test, 1, new_events=True)] == [[6, 7], [8]]
    alone = replace(test, seen=None, after=None)
    assert [carried(batch) for batch in BatchLoader(alone, 1, new_events=True)] == [list(range(8)), [8]]
    none = replace(
        valid, **{name: getattr(valid, name)[:0] for name in ("users", "timestamps", "history_ends", "labels")}
    )
    assert alone.following(none.following(train)).after == 3


@pytest.mark.parametrize("rows", [[0, 2], [1, 0], [2, 1, 0], [1, 1]])
def test_the_calendar_needs_consecutive_rows(rows: list[int]) -> None:
    (split,) = small_splits([(0, 1)], [[(1, 2), (1, 3), (2, 4)]])
    with pytest.raises(ValueError, match=r"Split\.batch: rows must be consecutive for writes = 'calendar'"):
        split.batch(np.array(rows), new_events=True)
    split.batch(np.array(rows), new_events=True, writes="samples")
    assert carried(split.batch(np.array([], dtype=np.int64), new_events=True)) == []


def test_the_calendar_needs_samples_in_the_order_of_time() -> None:
    frame = make_events(rows=200, label=True)
    dataset = load_dataset(frame, SCHEMA)
    pairs = frame[::-7].select("user_id", "item_id", "hour", "timestamp")
    split = prepare_pairs(pairs, frame, SCHEMA, dataset.vocabularies, 7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="samples must be in the order of time for writes = 'calendar'"):
        list(BatchLoader(split, 5, new_events=True))
    assert len(list(BatchLoader(split, 5, new_events=True, writes="samples"))) == -(-len(split) // 5)


def test_rows_without_times_have_no_calendar(tmp_path: Path) -> None:
    split = load_rows(write_rows(tmp_path / "rows", make_rows())).train
    with pytest.raises(ValueError, match="writes = 'calendar' needs events with times, and these prepared rows have"):
        BatchLoader(split, 8, new_events=True, writes="calendar")
    for left, right in zip(
        BatchLoader(split, 8, new_events=True), BatchLoader(split, 8, new_events=True, writes="samples"), strict=True
    ):
        assert same(left, right)


def test_an_unknown_rule_is_refused() -> None:
    (split,) = small_splits([(0, 1)], [[(1, 2)]])
    with pytest.raises(ValueError, match="writes must be 'calendar', 'samples' or None, got 'clock'"):
        BatchLoader(split, 8, new_events=True, writes="clock")  # type: ignore[arg-type]


def batches_of(dataset: Dataset, batch_size: int) -> dict[str, list[Batch]]:
    """Batches with new events of all splits, each after the one before."""
    found: dict[str, list[Batch]] = {}
    earlier: Split | None = None
    for name, split in dataset.splits.items():
        earlier = split if earlier is None else split.following(earlier)
        found[name] = list(BatchLoader(earlier, batch_size, new_events=True, prefetch=0))
    return found


def assert_equal_before(first: Dataset, second: Dataset, moment: int, batch_size: int) -> int:
    """Every batch before ``moment`` is equal whose next one begins there at the latest, and each sample before it.

    Returns:
        How many batches are equal in all.
    """
    ours, theirs = batches_of(first, batch_size), batches_of(second, batch_size)
    equal = 0
    for name, split in first.splits.items():
        times = split.timestamps
        for number, (left, right) in enumerate(zip(ours[name], theirs[name], strict=True)):
            stop = (number + 1) * batch_size
            next_begins = times[stop] if stop < len(times) else times[-1] + 1
            if times[:stop][-1] < moment and next_begins <= moment:
                assert same(left, right), (name, number)
                equal += 1
            before = torch.from_numpy(times[number * batch_size : stop] < moment)
            for field in (
                "user",
                "item",
                "context",
                "numeric",
                "history",
                "history_mask",
                "label",
                "found",
                "found_mask",
            ):
                assert torch.equal(getattr(left, field)[before], getattr(right, field)[before]), (name, number, field)
    assert any(not same(*pair) for name in SPLITS for pair in zip(ours[name], theirs[name], strict=True))
    return equal


def rows_changed_from(
    tables: dict[str, pl.DataFrame], moment: int, rng: np.random.Generator
) -> dict[str, pl.DataFrame]:
    """Other items of events, and other items, labels and contexts of samples, at ``moment`` and after it."""
    items = tables["item_info"].height
    info = tables["user_info"].to_dicts()
    lists = [
        [
            int(rng.integers(1, items)) if time >= moment else item
            for item, time in zip(user["full_item_seq"], user["full_time_seq"], strict=True)
        ]
        for user in info
    ]
    changed = {
        "user_info": tables["user_info"].with_columns(pl.Series("full_item_seq", lists, dtype=pl.List(pl.Int64)))
    }
    late = pl.col("timestamp") >= moment
    for name in SPLITS:
        rows = tables[name].height
        drawn = {"item_index": (1, items), "label": (0, 2), "tab": (1, 5)}
        changed[name] = tables[name].with_columns(
            **{
                column: pl.when(late).then(pl.Series(rng.integers(*between, rows))).otherwise(column)
                for column, between in drawn.items()
            }
        )
    return {**tables, **changed}


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize("moment", [20, 53, 60, 85])
def test_what_rows_hold_from_a_moment_on_changes_no_batch_before_it(
    tmp_path: Path, moment: int, batch_size: int
) -> None:
    tables = make_timed_rows()
    options = DataOptions(window=5, search_by="category", search_window=3)
    known = load_rows(write_rows(tmp_path / "before", tables), options)
    changed = rows_changed_from(tables, moment, np.random.default_rng(moment))
    other = load_rows(write_rows(tmp_path / "after", changed), options, vocabularies=known.vocabularies)  # type: ignore[arg-type]
    equal = assert_equal_before(known, other, moment, batch_size)
    assert equal >= {1: 10, 7: 1, 1000: moment > 53}[batch_size]


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize("row", [200, 310, 350, 390])
def test_what_a_table_holds_from_a_moment_on_changes_no_batch_before_it(row: int, batch_size: int) -> None:
    frame = make_events(rows=400, users=12, items=30, label=True)
    cuts = {"valid_from": frame["timestamp"][300].isoformat(), "test_from": frame["timestamp"][340].isoformat()}
    options = DataOptions(window=5, search_by="category", search_window=3, **cuts)  # type: ignore[arg-type]
    known = load_dataset(frame, SCHEMA, options)
    moment = int(frame["timestamp"].to_physical()[row])
    late = (frame["timestamp"].to_physical() >= moment).to_numpy()
    # Other users, items and labels: which events a history holds, and whose, changes from the moment on.
    place, rng = np.arange(len(frame)), np.random.default_rng(row)
    place[late] = rng.permutation(place[late])
    items = place.copy()
    items[late] = rng.permutation(items[late])
    altered = frame.with_columns(user_id=frame["user_id"][place], label=frame["label"][place])
    altered = altered.with_columns(item_id=frame["item_id"][items], category=frame["category"][items])
    other = load_dataset(altered, SCHEMA, options, vocabularies=known.vocabularies)  # type: ignore[arg-type]
    equal = assert_equal_before(known, other, moment, batch_size)
    assert equal >= {1: 150, 7: 20, 1000: (row > 300) + (row > 340)}[batch_size]
