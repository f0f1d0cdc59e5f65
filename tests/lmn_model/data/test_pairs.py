"""Pairs of users and items to be scored, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from batch_fields import FIELDS
from events_factory import make_events

from lmn_model.data import (
    DataError,
    DataOptions,
    Dataset,
    Schema,
    Vocabularies,
    load_dataset,
    prepare_pairs,
)
from lmn_model.data.features import open_id

SCHEMA = Schema(user_features=("segment",), item_features=("category",), context_features=("hour", "price"))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(make_events(rows=600), SCHEMA, DataOptions(window=7))


def test_pairs_equal_the_samples_of_training(dataset: Dataset, tmp_path: Path) -> None:
    frame = make_events(rows=600)
    dataset.vocabularies.save(tmp_path)
    vocabularies = Vocabularies.load(tmp_path)
    positives = np.flatnonzero(dataset.test.labels)
    shuffled = np.random.default_rng(0).permutation(positives)
    pairs = frame[dataset.test.events[shuffled].tolist()].select("price", "item_id", "hour", "timestamp", "user_id")
    split = prepare_pairs(pairs, frame, SCHEMA, vocabularies, 7)
    found, expected = split.batch(np.arange(len(pairs))), dataset.test.batch(shuffled)
    for name in FIELDS:
        if name != "label":
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert found.label.isnan().all()


def test_pairs_without_a_time_see_every_event(dataset: Dataset) -> None:
    frame = make_events(rows=600)
    pairs = pl.DataFrame({"user_id": ["u3"], "item_id": [1005], "hour": [2], "price": [3.0]})
    batch = prepare_pairs(pairs, frame, SCHEMA, dataset.vocabularies, 7).batch(np.array([0]))
    values = dataset.vocabularies.encoder.vocabularies["item_id"].values.to_list()
    newest = frame.filter(pl.col("user_id") == "u3")["item_id"].cast(pl.String).to_list()[-7:]
    assert batch.history[0, :, 0].tolist() == [values.index(item) + 2 if item in values else 1 for item in newest]


def test_pairs_see_what_came_one_tick_before_and_nothing_of_their_own_tick() -> None:
    events = pl.DataFrame({"user_id": 1, "item_id": [i % 4 for i in range(40)], "timestamp": range(40)})
    vocabularies = load_dataset(events, Schema()).vocabularies
    pairs = pl.DataFrame({"user_id": 1, "item_id": 2, "timestamp": [5, 0, 99]})
    split = prepare_pairs(pairs, events, Schema(), vocabularies, 50)
    assert split.batch(np.arange(3)).history_mask.sum(1).tolist() == [5, 0, 40]


def test_pairs_of_users_and_items_that_training_has_not_seen(dataset: Dataset) -> None:
    frame = make_events(rows=600)
    fresh = frame.tail(3).with_columns(user_id=pl.lit("fresh"), item_id=pl.lit(7, dtype=pl.Int64))
    events = pl.concat([frame, fresh])
    pairs = pl.DataFrame({"user_id": ["u1", "stranger", "fresh"], "item_id": [5, 7, 1001], "hour": 2, "price": 3.0})
    batch = prepare_pairs(pairs, events, SCHEMA, dataset.vocabularies, 7).batch(np.arange(3))
    assert batch.item[0].tolist() == [open_id("5"), 1], "a feature that no table gives is unseen"
    assert batch.item[1, 0] == open_id("7")
    assert batch.item[1, 1] >= 2, "an item that the events describe has its category"
    assert batch.user[:, 0].tolist()[1:] == [open_id("stranger"), open_id("fresh")]
    assert batch.user[1, 1] == 1
    assert batch.user[2, 1] >= 2
    assert batch.history_mask.sum(1).tolist() == [7, 0, 3]
    assert len(batch.group.unique()) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": "hour"}, "pairs: no column 'hour'"),
        ({"drop": "user_id"}, "pairs: no column 'user_id'"),
        ({"timestamp": 5}, "pairs: column 'timestamp': it was datetime in training and is integer here"),
        (
            {"price": None},
            r"pairs: column 'price': row 1: a numeric feature must have a finite number, got None \(1 of 1",
        ),
        ({"price": "dear"}, "pairs: column 'price': row 1: a numeric feature must be a finite number .* got 'dear'"),
        ({"hour": [1]}, r"pairs: column 'hour': a feature must be text, .* got List\(Int64\)"),
        ({"item_id": None}, "pairs: column 'item_id': ids must"),
    ],
)
def test_bad_pairs_are_refused(dataset: Dataset, change: dict[str, Any], message: str) -> None:
    row = {"user_id": "u1", "item_id": 1001, "hour": 2, "price": 3.0, **change}
    row.pop(row.pop("drop", ""), None)
    with pytest.raises(DataError, match=message):
        prepare_pairs(pl.DataFrame([row]), make_events(rows=600), SCHEMA, dataset.vocabularies, 7)


def test_another_schema_or_clock_than_in_training_is_refused(dataset: Dataset) -> None:
    frame = make_events(rows=600)
    with pytest.raises(DataError, match="schema: it must be that of training"):
        load_dataset(frame, Schema(), vocabularies=dataset.vocabularies)
    integers = frame.with_columns(pl.col("timestamp").dt.epoch("s"))
    with pytest.raises(DataError, match="column 'timestamp': it was datetime in training and is integer here"):
        load_dataset(integers, SCHEMA, vocabularies=dataset.vocabularies)
