"""Feedback: each labelled sample is carried once, by the batch after whose moment its label is known."""

from __future__ import annotations

import numpy as np
import pytest
from events_factory import make_events
from hypothesis import given, settings
from hypothesis import strategies as st

from lmn_model.data import BatchLoader, Dataset, Schema, load_dataset
from lmn_model.data.splits import Split


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    schema = Schema(user="user_id", item="item_id", timestamp="timestamp", label="label", item_features=("category",))
    return load_dataset(make_events(rows=700, users=15, items=30, label=True), schema)


def samples_of(split: Split) -> list[tuple[int, ...]]:
    tables = split.tables
    items, users = tables.items.ids[split.items], tables.users.ids[split.users, 0]
    return [(*item, user, int(label)) for item, user, label in zip(items.tolist(), users, split.labels, strict=True)]


@settings(deadline=None, max_examples=40)
@given(batch_size=st.integers(1, 80), name=st.sampled_from(["train", "valid", "test"]))
def test_each_sample_is_carried_once_and_not_before_its_moment_is_over(
    dataset: Dataset, batch_size: int, name: str
) -> None:
    split = dataset.splits[name]
    carried = 0
    batches = list(BatchLoader(split, batch_size, feedback=True, prefetch=0))
    expected = samples_of(split)
    for number, batch in enumerate(batches):
        feedback = zip(
            batch.feedback_items.tolist(), batch.feedback_users.tolist(), batch.feedback_labels.tolist(), strict=True
        )
        found = [(*item, user, int(label)) for item, user, label in feedback]
        assert found == expected[carried : carried + len(found)]
        carried += len(found)
        following = (number + 1) * batch_size
        if following < len(split):
            assert (split.timestamps[:carried] < split.timestamps[following]).all()
            assert (split.timestamps[carried:] >= split.timestamps[following]).all()
    assert carried == len(split)


def test_a_pass_that_is_resumed_carries_the_same(dataset: Dataset) -> None:
    every = list(BatchLoader(dataset.train, 50, feedback=True))
    rest = list(BatchLoader(dataset.train, 50, feedback=True, start=4))
    for first, second in zip(every[4:], rest, strict=True):
        assert first.feedback_items.equal(second.feedback_items)
        assert first.feedback_labels.equal(second.feedback_labels)


def test_what_feedback_needs(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="BatchLoader: feedback needs order 'time', got 'shuffle'"):
        BatchLoader(dataset.train, 8, order="shuffle", feedback=True)
    with pytest.raises(ValueError, match="rows must be consecutive for feedback"):
        dataset.train.batch(np.array([3, 1]), feedback=True)
    assert dataset.train.batch(np.array([], dtype=np.int64), feedback=True).feedback_users.shape == (0,)
    assert dataset.train.batch(np.arange(3)).feedback_items is None
