"""Histories and windows against a loop over rows, and proof that nothing of the present or the future is in them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from events_factory import make_events
from hypothesis import given, settings
from hypothesis import strategies as st

from lmn_model.data import DataOptions, Schema, load_dataset
from lmn_model.data.histories import Histories

SCHEMA = Schema(user_features=("segment",), item_features=("category",), context_features=("hour", "price"))
PADDING = 99


def windows_by_loop(events: list[tuple[int, int, int]], samples: list[tuple[int, int]], window: int) -> list[list[int]]:
    """The definition: the items of the user's events with a smaller timestamp, in the order of time, the newest T."""
    ordered = sorted(events, key=lambda event: event[2])
    result = []
    for user, time in samples:
        earlier = [item for owner, item, when in ordered if owner == user and when < time][-window:]
        result.append([PADDING] * (window - len(earlier)) + earlier)
    return result


event_lists = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(-2, 6)), max_size=40)
sample_lists = st.lists(st.tuples(st.integers(0, 4), st.integers(-4, 8)), min_size=1, max_size=20)


@settings(max_examples=200, deadline=None)
@given(events=event_lists, samples=sample_lists, window=st.integers(1, 7))
def test_windows_equal_a_loop_over_rows(
    events: list[tuple[int, int, int]], samples: list[tuple[int, int]], window: int
) -> None:
    users, items, times = (np.array([event[i] for event in events], dtype=np.int64) for i in range(3))
    histories = Histories(users, items, times, user_count=5, padding_item=PADDING)
    sample_users, sample_times = (np.array([sample[i] for sample in samples], dtype=np.int64) for i in range(2))
    ends = histories.ends(sample_users, sample_times)
    found, mask = histories.windows(sample_users, ends, window)
    assert found.tolist() == windows_by_loop(events, samples, window)
    np.testing.assert_array_equal(mask, found != PADDING)


@pytest.mark.parametrize("history", ["positive", "all"])
def test_batches_of_a_dataset_equal_a_loop_over_rows(history: str) -> None:
    frame = make_events(rows=400, users=6, items=30, label=True)
    assert frame["timestamp"].n_unique() < 300, "the table must hold many equal timestamps"
    frame = frame.with_columns(
        label=pl.when(pl.int_range(pl.len()) % 7 == 0).then(None).otherwise("label"), row=pl.int_range(pl.len())
    )
    dataset = load_dataset(
        frame,
        Schema(label="label", item_features=("category",)),
        DataOptions(window=9, history=history),  # type: ignore[arg-type]
    )
    items, categories = (dataset.vocabularies.encoder.vocabularies[name] for name in ("item_id", "category"))
    rows = frame.to_dicts()
    labelled = [row for row in rows if row["label"] is not None]
    start = len(dataset.train)
    batch = dataset.valid.batch(np.arange(len(dataset.valid)))
    for place, sample in enumerate(labelled[start : start + len(dataset.valid)]):
        earlier = [
            row
            for row in rows
            if row["user_id"] == sample["user_id"]
            and row["timestamp"] < sample["timestamp"]
            and (history == "all" or row["label"] != 0)
        ][-9:]
        assert batch.label[place] == sample["label"]
        assert batch.history_mask[place].tolist() == [False] * (9 - len(earlier)) + [True] * len(earlier)
        real = batch.history[place, 9 - len(earlier) :]
        assert real[:, 0].tolist() == [_id(items.values, str(row["item_id"])) for row in earlier]
        assert real[:, 1].tolist() == [_id(categories.values, row["category"]) for row in earlier]
        assert not batch.history[place, : 9 - len(earlier)].any()
        assert batch.item[place, 0] == _id(items.values, str(sample["item_id"]))


def _id(values: pl.Series, value: str) -> int:
    found = values.to_list()
    return found.index(value) + 2 if value in found else 1


def test_nothing_else_at_or_after_a_sample_changes_its_row() -> None:
    frame = make_events(rows=600, users=8, items=40, label=True)
    schema = Schema(label="label", user_features=("segment",), item_features=("category",), context_features=("hour",))
    options = DataOptions(window=12, valid_from="2024-01-03", test_from="2024-01-04")
    before = load_dataset(frame, schema, options)
    rng = np.random.default_rng(0)
    baskets = np.flatnonzero(np.diff(before.valid.timestamps) == 0)
    for place in rng.choice(baskets, 8, replace=False):
        event, moment = before.valid.events[place], before.valid.timestamps[place]
        later = pl.col("timestamp").dt.epoch("us") >= moment
        others = later & (pl.int_range(pl.len()) != event)
        altered = frame.with_columns(
            user_id=pl.when(others).then(pl.col("user_id").reverse()).otherwise("user_id"),
            item_id=pl.when(others).then(pl.Series(rng.integers(1000, 1040, frame.height))).otherwise("item_id"),
            hour=pl.when(others).then(23 - pl.col("hour")).otherwise("hour"),
            label=pl.when(later).then(1 - pl.col("label")).otherwise("label"),
        )
        after = load_dataset(altered, schema, options, vocabularies=before.vocabularies)
        old, new = before.valid.batch(np.array([place])), after.valid.batch(np.array([place]))
        for name in ("user", "item", "context", "numeric", "history", "history_mask", "group"):
            torch.testing.assert_close(getattr(old, name), getattr(new, name), rtol=0, atol=0, msg=name)
        assert old.history_mask.any()
        assert not old.label.equal(new.label), "the alteration must reach the labels"


def test_the_past_does_change_a_row() -> None:
    frame = make_events(rows=600, users=8, items=40)
    before = load_dataset(frame, SCHEMA, DataOptions(window=12))
    altered = frame.with_columns(item_id=pl.when(pl.int_range(pl.len()) < 400).then(1000).otherwise("item_id"))
    after = load_dataset(altered, SCHEMA, DataOptions(window=12), vocabularies=before.vocabularies)
    rows = np.arange(len(before.valid))
    assert not before.valid.batch(rows).history.equal(after.valid.batch(rows).history)


def test_events_of_one_basket_do_not_see_each_other() -> None:
    frame = pl.DataFrame({"user_id": ["a"] * 40, "item_id": list(range(40)), "timestamp": [i // 5 for i in range(40)]})
    dataset = load_dataset(frame, Schema(), DataOptions(window=50, valid_fraction=0.25, test_fraction=0.25))
    for split in (dataset.train, dataset.valid, dataset.test):
        batch = split.batch(np.arange(len(split)))
        assert batch.history_mask.sum(dim=1).tolist() == (split.timestamps * 5).tolist()
