"""Features of the user's earlier labels: counted by hand, blind to the sample and to what follows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from events_factory import make_events

from lmn_model.data import DataOptions, Schema, Vocabularies, load_dataset, prepare_pairs
from lmn_model.data.user_rates import NAMES, UserRates

LABELLED = Schema(label="label", context_features=("price",))


def test_counts_are_those_of_labels_strictly_before() -> None:
    users, times = np.array([0, 1, 0, 0, 1, 0]), np.array([3, 3, 5, 5, 6, 9])
    rates = UserRates(users, times, np.array([1.0, 0, 1, 0, 0, 1]), user_count=3, overall=0.25)
    found = rates.before(np.array([0, 0, 0, 0, 1, 2]), np.array([3, 5, 6, 99, 7, 7]))
    counts, positives = np.array([0, 1, 3, 4, 2, 0]), np.array([0, 1, 2, 3, 0, 0])
    share = (positives + 2.5) / (counts + 10)
    np.testing.assert_allclose(found[:, 0], np.log1p(counts) / 2 - 1, rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], np.log(share / (1 - share)), rtol=1e-6)
    assert found.dtype == np.float32


def test_samples_have_them_and_later_labels_reach_no_earlier_sample() -> None:
    frame = make_events(rows=900, users=15, items=30, label=True)
    dataset = load_dataset(frame, LABELLED)
    assert dataset.features.numeric[-2:] == NAMES
    moment = int(dataset.train.timestamps[len(dataset.train) // 2])
    late = pl.Series(frame["timestamp"].dt.cast_time_unit("us").to_physical().to_numpy() >= moment)
    flipped = frame.with_columns(label=pl.when(late).then(1 - pl.col("label")).otherwise(pl.col("label")))
    other = load_dataset(flipped, LABELLED)
    assert other.vocabularies.label_rate != dataset.vocabularies.label_rate
    rows = np.arange(len(dataset.train))
    before = dataset.train.timestamps <= moment
    for split in (dataset.train, other.train):
        assert split.tables.user_rates is not None
        split.tables.user_rates._overall = 0.5  # the rate of all of training is known to training alone
    one, two = (split.batch(rows).numeric[:, -2:].numpy() for split in (dataset.train, other.train))
    assert (one[before] == two[before]).all()
    assert (one[~before] != two[~before]).any()
    assert (one[:, 0] > -1).any()


def test_pairs_have_the_labels_before_their_time_and_a_run_keeps_the_rate(tmp_path: Path) -> None:
    frame = make_events(rows=900, users=15, items=30, label=True)
    dataset = load_dataset(frame, LABELLED)
    dataset.vocabularies.save(tmp_path)
    saved = Vocabularies.load(tmp_path)
    assert saved.label_rate == dataset.vocabularies.label_rate
    user, item = frame["user_id"][0], frame["item_id"][0]
    pairs = pl.DataFrame({"user_id": [user, "stranger"], "item_id": [item, item], "price": [1.0, 1.0]})
    numeric = prepare_pairs(pairs, frame, LABELLED, saved, 5).batch(np.arange(2)).numeric[:, -2:].numpy()
    own = frame.filter(pl.col("user_id") == user)["label"]
    assert numeric[0, 0] == pytest.approx(np.log1p(len(own)) / 2 - 1)
    rate = saved.label_rate
    assert rate is not None
    assert numeric[1].tolist() == pytest.approx([-1, np.log(rate / (1 - rate))])


def test_they_are_off_without_labels_and_where_the_options_say_so() -> None:
    frame = make_events(rows=900, users=15, items=30, label=True)
    off = load_dataset(frame, LABELLED, DataOptions(user_rates=False))
    assert off.features.numeric == ("price",)
    assert off.train.tables.user_rates is None
    assert load_dataset(frame, LABELLED, open_ids=False).features.numeric == ("price",)
    assert load_dataset(frame.drop("label"), Schema(context_features=("price",))).features.numeric == ("price",)
