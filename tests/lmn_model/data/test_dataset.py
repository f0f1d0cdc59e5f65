"""Splits, ids, labels, negatives, limits: what a data set holds and which tables it refuses."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from events_factory import make_events

from lmn_model.data import DataError, DataOptions, FeatureSpec, Schema, Split, load_dataset
from lmn_model.data.events.encoder import Vocabulary
from lmn_model.data.features import FIRST_OPEN, is_unseen, open_id
from lmn_model.data.negatives import NegativeSampler

SCHEMA = Schema(user_features=("segment",), item_features=("category",), context_features=("hour", "price"))
LABELLED = Schema(label="label", user_features=("segment",), item_features=("category",), context_features=("hour",))


def splits_of(frame: pl.DataFrame, schema: Schema, **options: Any) -> dict[str, Split]:
    dataset = load_dataset(frame, schema, DataOptions(**options))
    return {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}


def columns(split: Split) -> list[np.ndarray[Any, Any]]:
    return [split.users, split.items, split.events, split.history_ends, split.labels, split.timestamps]


def test_splits_are_in_the_order_of_time_and_share_no_timestamp() -> None:
    frame = make_events(rows=1000, label=True)
    splits = splits_of(
        frame.sample(fraction=1.0, shuffle=True, seed=1), LABELLED, valid_fraction=0.2, test_fraction=0.1
    )
    assert sum(len(split) for split in splits.values()) == 1000
    assert abs(len(splits["valid"]) - 200) < 10
    assert abs(len(splits["test"]) - 100) < 10
    for split in splits.values():
        assert (np.diff(split.timestamps) >= 0).all()
    assert splits["train"].timestamps[-1] < splits["valid"].timestamps[0]
    assert splits["valid"].timestamps[-1] < splits["test"].timestamps[0]


def test_a_cut_that_falls_into_a_basket_leaves_it_whole() -> None:
    times = [0] * 10 + [1] * 30 + [2] * 10 + [3] * 10
    frame = pl.DataFrame({"user_id": 1, "item_id": [i % 7 for i in range(60)], "timestamp": times})
    splits = splits_of(frame, Schema(), valid_fraction=0.5, test_fraction=0.25, negatives=1)
    assert {name: sorted(set(split.timestamps)) for name, split in splits.items()} == {
        "train": [0],
        "valid": [1],
        "test": [2, 3],
    }


def test_explicit_moments_cut_the_splits() -> None:
    frame = make_events(rows=1000, label=True)
    splits = splits_of(frame, LABELLED, valid_from="2024-01-04", test_from="2024-01-05T12:00:00Z")
    day = 86_400_000_000
    first = 1_704_067_200_000_000
    assert splits["train"].timestamps[-1] < first + 3 * day <= splits["valid"].timestamps[0]
    assert splits["valid"].timestamps[-1] < first + 4.5 * day <= splits["test"].timestamps[0]
    integers = frame.with_columns(pl.col("timestamp").dt.epoch("ms"))
    moments = {"valid_from": (first + 3 * day) // 1000, "test_from": str((first + 4 * day + day // 2) // 1000)}
    again = splits_of(integers, LABELLED, **moments)
    assert [len(split) for split in again.values()] == [len(split) for split in splits.values()]


def test_ids_come_from_the_training_split_alone() -> None:
    frame = make_events(rows=1000, label=True)
    late = pl.int_range(pl.len()) >= 900
    frame = frame.with_columns(
        item_id=pl.when(late).then(pl.col("item_id") + 5000).otherwise("item_id"),
        hour=pl.when(late).then(77).otherwise("hour"),
        user_id=pl.when(late).then(pl.lit("late-") + pl.col("user_id")).otherwise("user_id"),
    )
    dataset = load_dataset(frame, LABELLED, DataOptions(valid_fraction=0.1, test_fraction=0.1))
    batch = dataset.test.batch(np.arange(len(dataset.test)))
    for ids in (batch.item[:, 0], batch.user[:, 0], batch.context):
        assert (ids >= FIRST_OPEN).all()
    assert len(batch.user[:, 0].unique()) == len(batch.group.unique()), "a new user has an id of its own"
    assert (batch.item[:, 1] >= 2).all(), "a new item still has its known category"
    assert len(batch.group.unique()) > 10, "unseen users stay apart"
    assert batch.history_mask[-20:].any(), "an unseen user still has a history"
    train = dataset.train.batch(np.arange(len(dataset.train)))
    for name in ("user", "item", "context"):
        part = getattr(dataset.features, name)
        ids = getattr(train, name)
        assert (ids >= 2).all()
        assert ids.amax(0).tolist() == [feature.size - 1 for feature in part]
    plain = dataset.features.to_dict()
    assert json.loads(json.dumps(plain)) == plain, "a checkpoint that is read back has equal features"
    assert dataset.features == FeatureSpec.from_dict(plain)


def test_features_of_an_item_are_those_of_its_last_training_row_or_its_first_later_one() -> None:
    frame = pl.DataFrame(
        {
            "user_id": ["u"] * 12,
            "item_id": ["a", "b"] * 4 + ["a", "c", "c", "b"],
            "timestamp": range(12),
            "brand": ["old", "b0", "x", "b1", "x", "b2", "new", "b3", "later", "new", "x", "b4"],
            "label": [0, 1] * 6,
        }
    )
    schema = Schema(label="label", item_features=("brand",))
    dataset = load_dataset(frame, schema, DataOptions(valid_from=8, test_from=10))
    brands = dataset.vocabularies.encoder.vocabularies["brand"].values.to_list()
    assert brands == ["b3", "new"]
    batch = dataset.test.batch(np.arange(2))
    assert batch.item.tolist() == [[open_id("c"), brands.index("new") + 2], [3, brands.index("b3") + 2]]


def test_rare_items_have_open_ids() -> None:
    frame = make_events(rows=600, items=80)
    dataset = load_dataset(frame, SCHEMA, DataOptions(min_item_count=8))
    counts = frame.head(int(dataset.train.events.max()) + 1)["item_id"].value_counts()
    frequent = counts.filter(pl.col("count") >= 8)["item_id"].cast(pl.String).sort()
    assert 0 < len(frequent) < 80
    assert dataset.vocabularies.encoder.vocabularies["item_id"].values.to_list() == frequent.to_list()
    items = dataset.train.batch(np.arange(len(dataset.train))).item[:, 0]
    assert 0 < (items >= FIRST_OPEN).sum() < len(items)


def test_open_ids_do_not_depend_on_the_process_and_fit_what_computes_with_ids() -> None:
    assert open_id("u1") == 1543131873747507602
    ids = np.array([open_id(str(number)) for number in range(10_000)])
    assert len(np.unique(ids)) == len(ids)
    assert ids.min() >= FIRST_OPEN
    assert ids.max() < 1 << 62
    column = pl.Series(["a", "z", None, "y", "z"])
    ids = Vocabulary(pl.Series(["a"])).encode(column, open_ids=True)
    assert ids.tolist() == [2, open_id("z"), 1, open_id("y"), open_id("z")]
    assert is_unseen(ids).tolist() == [False, True, True, True, True]
    with_null = Vocabulary(pl.Series(["a", None])).encode(column, open_ids=True)
    assert with_null.tolist()[:3] == [2, open_id("z"), 3]


def test_numbers_are_standardised_by_the_training_split() -> None:
    frame = make_events(rows=1000).with_columns(weight=pl.lit(2.5), size=(pl.col("item_id") % 5).cast(pl.Float64))
    schema = Schema(item_features=("size",), context_features=("price", "weight"))
    dataset = load_dataset(frame, schema)
    assert dataset.features.numeric == ("size", "price", "weight")
    positives = np.flatnonzero(dataset.train.labels)
    numeric = dataset.train.batch(positives).numeric.double()
    np.testing.assert_allclose(numeric.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(numeric.std(0, correction=0), [1, 1, 0], atol=1e-5)
    negatives = dataset.train.batch(positives + 1)
    np.testing.assert_array_equal(negatives.numeric[:, 1], numeric[:, 1].float())
    assert not negatives.numeric[:, 0].equal(numeric[:, 0].float()), "the number of an item goes with the candidate"


def test_null_is_a_category_of_its_own() -> None:
    frame = make_events(rows=400).with_columns(hour=pl.when(pl.col("hour") < 4).then("hour"))
    dataset = load_dataset(frame, SCHEMA)
    assert dataset.vocabularies.encoder.vocabularies["hour"].values.to_list() == [None, "0", "1", "2", "3"]
    ids = dataset.train.batch(np.arange(len(dataset.train))).context[:, 0]
    assert sorted(set(ids.tolist())) == [2, 3, 4, 5, 6]


def test_negatives_follow_their_positive_and_share_its_context() -> None:
    splits = splits_of(make_events(rows=500), SCHEMA, negatives=3)
    for split in splits.values():
        assert split.labels.reshape(-1, 4).tolist() == [[1, 0, 0, 0]] * (len(split) // 4)
        for array in (split.users, split.events, split.history_ends, split.timestamps):
            rows = array.reshape(-1, 4)
            assert (rows == rows[:, :1]).all()
        candidates = split.items.reshape(-1, 4)
        assert (candidates[:, 1:] != candidates[:, :1]).all()


def test_negatives_have_the_popularity_of_the_training_split_without_the_positive() -> None:
    counts = np.array([600, 0, 250, 100, 50])
    sampler = NegativeSampler(np.repeat(np.arange(5), counts), 5)
    for positive in range(5):
        drawn = sampler.draw(np.full(20_000, positive), 2, np.random.default_rng(positive)).ravel()
        expected = counts.astype(np.float64)
        expected[positive] = 0
        shares = np.bincount(drawn, minlength=5) / len(drawn)
        np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.012)
        assert shares[positive] == 0


def test_negatives_of_every_split_come_from_the_training_split() -> None:
    late = pl.when(pl.int_range(pl.len()) >= 400).then(pl.col("item_id") + 5000).otherwise("item_id")
    splits = splits_of(make_events(rows=500).with_columns(item_id=late), SCHEMA, negatives=5)
    unseen = np.unique(splits["test"].items[splits["test"].labels == 1])
    assert len(unseen) > 20
    assert not np.isin(splits["test"].items[splits["test"].labels == 0], unseen).any()


def test_a_dominant_item_is_never_its_own_negative() -> None:
    sampler = NegativeSampler(np.array([0] * 100_000 + [1]), 2)
    assert (sampler.draw(np.zeros(1000, dtype=np.int32), 1, np.random.default_rng(0)) == 1).all()


def test_equal_seeds_give_equal_samples_and_other_seeds_other_negatives() -> None:
    frame = make_events(rows=500)
    first, again, other = (splits_of(frame, SCHEMA, seed=seed, max_train_rows=200) for seed in (0, 0, 1))
    for name in first:
        for left, right in zip(columns(first[name]), columns(again[name]), strict=True):
            np.testing.assert_array_equal(left, right)
        assert not np.array_equal(first[name].items, other[name].items)
    assert not np.array_equal(first["train"].events, other["train"].events)


def test_limits_draw_uniformly_and_leave_ids_and_histories_alone() -> None:
    frame = make_events(rows=1000)
    full = load_dataset(frame, SCHEMA)
    part = load_dataset(frame, SCHEMA, DataOptions(max_train_rows=200, max_eval_rows=30))
    assert [len(split) for split in (part.train, part.valid, part.test)] == [400, 60, 60]
    chosen = np.unique(part.train.events)
    assert len(chosen) == 200
    assert abs(chosen.mean() / full.train.events.mean() - 1) < 0.15, "drawn from all of the split, not from its head"
    assert part.features == full.features
    ends = dict(zip(full.train.events.tolist(), full.train.history_ends.tolist(), strict=True))
    assert [ends[event] for event in part.train.events.tolist()] == part.train.history_ends.tolist()


def test_an_event_without_a_label_is_history_and_no_sample() -> None:
    frame = make_events(rows=400, users=5, label=True)
    hidden = frame.with_columns(label=pl.when(pl.int_range(pl.len()) >= 100).then("label"))
    dataset = load_dataset(hidden, LABELLED)
    assert len(dataset.train) + len(dataset.valid) + len(dataset.test) == 300
    assert dataset.describe()["events"] == 400
    assert dataset.train.batch(np.arange(5)).history_mask.sum() > 50


def test_describe_counts() -> None:
    frame = make_events(rows=500)
    dataset = load_dataset(frame, SCHEMA)
    described: dict[str, Any] = dataset.describe()
    assert described["users"] == 40
    assert described["events"] == 500
    assert described["train"]["rows"] == 2 * described["train"]["positives"] == len(dataset.train)
    unseen = dataset.test.unseen()[1]
    assert described["test"]["unseen_items"]["positives"] == round(unseen[dataset.test.labels == 1].mean(), 4)
    assert described["train"]["unseen_items"] == {"positives": 0.0, "negatives": 0.0}
    assert described["train"]["first"] == frame["timestamp"][0].isoformat()
    assert described["train"]["last"] < described["valid"]["first"] < described["test"]["last"]


@pytest.mark.parametrize("kind", [pl.Boolean, pl.Float64, pl.Int8])
def test_labels_may_be_of_any_type(kind: pl.DataType) -> None:
    frame = make_events(rows=300, label=True)
    expected = load_dataset(frame, LABELLED)
    found = load_dataset(frame.with_columns(pl.col("label").cast(kind)), LABELLED)
    np.testing.assert_array_equal(found.train.labels, expected.train.labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.col("label") * 2, "column 'label': labels must be 0 or 1, .* got 2 in"),
        (pl.lit(float("nan")).alias("label"), "column 'label': labels must be 0 or 1, .* got nan in"),
        (
            pl.lit("yes").alias("label"),
            "column 'label': labels must be 0 or 1, .* got 'yes' in 300 rows, the first in row 1",
        ),
        (pl.lit(None).alias("label"), "column 'label': every label is null"),
        (pl.lit(1).alias("label"), r"train split: all \d+ labels are 1"),
        (
            pl.when(pl.int_range(pl.len()) < 230).then("label").otherwise(0).alias("label"),
            r"valid split: all \d+ labels are 0",
        ),
    ],
)
def test_bad_labels_are_refused(change: pl.Expr, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(make_events(rows=300, label=True).with_columns(change), LABELLED)


def test_a_single_item_leaves_no_negatives() -> None:
    frame = pl.DataFrame({"user_id": [1] * 30, "item_id": ["only"] * 30, "timestamp": range(30)})
    with pytest.raises(DataError, match="the training split holds a single item"):
        load_dataset(frame, Schema())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"negatives": 0}, "negatives must be at least 1, got 0"),
        ({"max_eval_rows": 0}, "max_eval_rows must be at least 1, got 0"),
        ({"valid_fraction": 0.0}, "valid_fraction must be between 0 and 1, got 0.0"),
        ({"valid_fraction": 0.6, "test_fraction": 0.5}, "must leave rows for training, got 1.1"),
        ({"valid_from": "2024-01-02"}, "valid_from and test_from must be given together"),
        ({"history": "none"}, "history must be 'positive' or 'all', got 'none'"),
        ({"valid_from": 17, "test_from": 18}, "valid_from: the timestamps are datetimes, .* got 17"),
        ({"valid_from": "soon", "test_from": "2024-01-02"}, "valid_from: .* got 'soon'"),
        (
            {"valid_from": "2030-01-01", "test_from": "2031-01-01"},
            "splits: each needs a sample, got train 500, valid 0",
        ),
        ({"valid_from": "2024-01-03", "test_from": "2024-01-02"}, "valid_from must be before test_from, got"),
        ({"min_item_count": 400}, "min_item_count: no item has 400 events in the training split"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(make_events(rows=500), SCHEMA, DataOptions(**options))


def test_an_integer_clock_refuses_iso_text() -> None:
    frame = make_events(rows=300).with_columns(pl.col("timestamp").dt.epoch("s"))
    with pytest.raises(DataError, match=r"test_from: the timestamps are integers, .* got '2024-01-02'"):
        load_dataset(frame, SCHEMA, DataOptions(valid_from=1, test_from="2024-01-02"))


def test_an_id_that_is_the_text_of_a_missing_value_is_warned_of() -> None:
    table = make_events(rows=600, users=20)
    frame = table.with_columns(
        user_id=pl.when(pl.int_range(pl.len()) % 50 == 7)
        .then(pl.lit("NaN"))
        .otherwise(pl.col("user_id").cast(pl.String))
    )
    warnings = [each for each in load_dataset(frame, Schema()).warnings() if "missing value" in each]
    assert len(warnings) == 1
    assert "column 'user_id': 'NaN' is an id" in warnings[0]
    assert not any("missing value" in each for each in load_dataset(table, Schema()).warnings())
