"""Prepared rows: what they become, which folders are refused, and the commands on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from events_factory import make_events
from rows_factory import SPLITS, make_rows, write_rows

from lmn_model.data import (
    DataError,
    DataOptions,
    RowFeatures,
    Split,
    Vocabularies,
    load_dataset,
    load_rows,
    load_vocabularies,
)
from lmn_model.data.features import FeatureSpec
from lmn_model.data.schema import Schema
from lmn_model.training.build import open_dataset
from lmn_model.training.runs.fingerprint import data_fingerprint
from lmn_model.training.settings import DataSettings

Tables = dict[str, pl.DataFrame]


@pytest.fixture(scope="module")
def tables() -> Tables:
    return make_rows()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tables: Tables) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "mine", tables, {"product_id": 100, "tab": 2})


def whole(split: Split) -> Any:
    return split.batch(np.arange(len(split)))


def test_batches_hold_the_rows_in_the_order_of_each_users_clock(folder: Path, tables: Tables) -> None:
    dataset = load_rows(folder, DataOptions(window=7))
    lists = tables["user_info"]["full_item_seq"].to_list()
    items = tables["item_info"].select("product_id", "category").rows()
    for number, split_name in enumerate(SPLITS):
        split = getattr(dataset, split_name)
        rows = tables[split_name].to_dicts()
        last: dict[int, int] = {}
        for row in rows:
            last[row["user_index"]] = max(last.get(row["user_index"], 1), row["seq_len"])
        clock = [number * 2**40 + row["seq_len"] * 2**40 // last[row["user_index"]] for row in rows]
        order = sorted(range(len(rows)), key=lambda row: clock[row])  # sorted() is stable
        batch = whole(split)
        assert split.timestamps.tolist() == [clock[row] for row in order]
        for place, row in enumerate(rows[row] for row in order):
            seen = lists[row["user_index"]][: row["seq_len"]][-7:]
            assert batch.label[place] == row["label"]
            assert batch.group[place] == row["user_index"]
            assert batch.user[place].tolist() == [row["user_id"]]
            assert batch.item[place].tolist() == list(items[row["item_index"]])
            assert batch.context[place].tolist() == [row["tab"], row["hour"]]
            assert batch.history_mask[place].tolist() == [False] * (7 - len(seen)) + [True] * len(seen)
            assert batch.history[place].tolist() == [[0, 0]] * (7 - len(seen)) + [list(items[item]) for item in seen]
        assert batch.numeric.shape == (len(rows), 0)


def test_events_after_all_samples_change_no_order(folder: Path, tables: Tables, tmp_path: Path) -> None:
    lists = [[*events, *[3] * (user % 4)] for user, events in enumerate(tables["user_info"]["full_item_seq"].to_list())]
    longer = pl.DataFrame({"full_item_seq": lists}, schema={"full_item_seq": pl.List(pl.Int64)})
    other = write_rows(tmp_path / "longer", {**tables, "user_info": longer}, {"product_id": 100, "tab": 2})
    for split_name in SPLITS:
        ours, theirs = getattr(load_rows(folder), split_name), getattr(load_rows(other), split_name)
        assert ours.events.tolist() == theirs.events.tolist()
        assert ours.timestamps.tolist() == theirs.timestamps.tolist()


def test_parts_that_overlap_in_time_are_refused(tables: Tables, tmp_path: Path) -> None:
    swapped = write_rows(tmp_path / "swapped", {**tables, "train": tables["test"], "test": tables["train"]})
    with pytest.raises(DataError, match=r"valid\.parquet: column 'seq_len': .* user_index \d+ has a sample of \d+"):
        load_rows(swapped)


def test_an_order_of_time_never_goes_back_for_a_user(folder: Path) -> None:
    split = load_rows(folder).train
    for user in np.unique(split.users):
        assert (np.diff(split.history_ends[split.users == user]) >= 0).all()


def test_sizes_are_those_of_the_feature_map_and_at_least_the_largest_id(folder: Path, tables: Tables) -> None:
    features = load_rows(folder).features
    largest = {
        name: max(int(tables[split_name][name].max()) for split_name in SPLITS) for name in ("user_id", "tab", "hour")
    }
    assert [(each.name, each.size) for each in features.user] == [("user_id", largest["user_id"] + 1)]
    assert [(each.name, each.size) for each in features.item] == [("product_id", 100), ("category", 7)]
    assert [(each.name, each.size) for each in features.context] == [
        ("tab", largest["tab"] + 1),  # the map says 2
        ("hour", largest["hour"] + 1),
    ]
    assert features.numeric == ()
    assert features.unseen is None  # 1 is a value like any other
    assert FeatureSpec.from_dict(features.to_dict()) == features


def test_a_folder_without_map_and_context_will_do(tmp_path: Path) -> None:
    dataset = load_rows(write_rows(tmp_path / "rows", make_rows(context=False)))
    assert dataset.features.context == ()
    assert whole(dataset.train).context.shape == (150, 0)


def test_other_integers_and_labels_of_other_types_are_read_alike(tmp_path: Path, folder: Path, tables: Tables) -> None:
    narrow = {name: table.cast({pl.Int64: pl.Int32}) for name, table in tables.items()}
    narrow = {name: table.cast({"label": pl.Float64}) if name in SPLITS else table for name, table in narrow.items()}
    narrow["user_info"] = tables["user_info"].cast(pl.List(pl.UInt32))
    again = load_rows(write_rows(tmp_path / "rows", narrow, {"product_id": 100}))
    assert data_fingerprint(again) == data_fingerprint(load_rows(folder))


def test_limits_draw_rows_and_keep_their_order(folder: Path) -> None:
    def rows(split: Split) -> list[int]:
        return split.events.tolist()

    all_rows = load_rows(folder)
    few, again, other = (
        load_rows(folder, DataOptions(max_train_rows=40, max_eval_rows=30, seed=seed)) for seed in (1, 1, 2)
    )
    assert [len(getattr(few, split_name)) for split_name in SPLITS] == [40, 30, 30]
    kept = set(rows(few.train))
    assert rows(few.train) == [row for row in rows(all_rows.train) if row in kept]
    assert rows(few.train) == rows(again.train) != rows(other.train)


def test_the_description_counts(folder: Path, tables: Tables) -> None:
    described = load_rows(folder).describe()
    assert described == {
        "users": 12,
        "items": 39,
        "events": int(tables["user_info"]["full_item_seq"].list.len().sum()),
        **{
            split_name: {
                "rows": 150,
                "positives": int(tables[split_name]["label"].sum()),
                "users": tables[split_name]["user_index"].n_unique(),
            }
            for split_name in SPLITS
        },
    }


def changed(tables: Tables, table: str, column: str, row: int, value: object) -> Tables:
    values = tables[table][column].to_list()
    assert values[row] != value
    values[row] = value
    return {**tables, table: tables[table].with_columns(pl.Series(column, values))}


@pytest.mark.parametrize(
    ("table", "column", "row", "value"),
    [
        ("train", "label", 3, None),
        ("valid", "item_index", 3, 1),
        ("test", "hour", 2, 99),
        ("train", "seq_len", 2, 0),
        ("item_info", "category", 5, 99),
        ("user_info", "full_item_seq", 2, None),
    ],
)
def test_the_fingerprint_covers_every_table(
    tmp_path: Path, folder: Path, tables: Tables, table: str, column: str, row: int, value: object
) -> None:
    old = tables[table][column].to_list()[row]
    if column == "label":
        value = 1 - old
    elif column == "full_item_seq":
        value = old[::-1]
    altered = load_rows(write_rows(tmp_path / "rows", changed(tables, table, column, row, value)))
    assert data_fingerprint(altered) != data_fingerprint(load_rows(folder))


SAMPLES = [
    ("label", 2, "labels must be 0 or 1, .* got 2"),
    ("label", None, "labels must be 0 or 1, got null in 1 rows"),
    ("label", "yes", "labels must be 0 or 1, .* got"),
    ("user_index", 12, r"it must be below 12, the rows of user_info\.parquet, got 12 \(the first at 4\)"),
    ("user_index", -1, r"it must be at least 0, got -1 \(the first at 4\)"),
    ("user_index", 1.5, "it must be integers, got Float64"),
    ("item_index", 40, r"it must be in \[1, 40\), got 40"),
    ("item_index", 0, r"it must be in \[1, 40\), got 0"),
    ("item_index", None, "it must not be null, got null in 1 rows"),
    ("seq_len", 1000, "it must be at most the length of the user's history, got 1000"),
    ("seq_len", -2, "it must be at least 0, got -2"),
    ("user_id", 77, r"a user has one id, but user_index \d+ has 77 and \d+"),
    ("hour", "noon", "it must be integers, got String"),
    ("tab", None, "it must not be null, got null in 1 rows"),
]


@pytest.mark.parametrize("split_name", ["train", "test"])
@pytest.mark.parametrize(("column", "value", "message"), SAMPLES)
def test_wrong_samples_are_refused(
    tmp_path: Path, tables: Tables, split_name: str, column: str, value: object, message: str
) -> None:
    values = tables[split_name][column].to_list()
    values[4] = value
    if isinstance(value, str):
        values = list(map(str, values))
    elif isinstance(value, float):
        values = list(map(float, values))
    altered = {**tables, split_name: tables[split_name].with_columns(pl.Series(column, values))}
    with pytest.raises(DataError, match=rf"{split_name}\.parquet: column '{column}': {message}"):
        load_rows(write_rows(tmp_path / "rows", altered))


def replaced(table: str, **columns: Any) -> Callable[[Tables], Tables]:
    return lambda tables: {**tables, table: tables[table].with_columns(**columns)}


LISTS = pl.col("full_item_seq")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tables: {**tables, "valid": tables["valid"].head(0)}, r"valid\.parquet: the table is empty"),
        (lambda tables: {**tables, "item_info": tables["item_info"].head(1)}, "there is no item besides the padding"),
        (replaced("test", label=1), r"test\.parquet: column 'label': all 150 labels are 1; a split needs both classes"),
        (
            replaced("item_info", item_index=pl.col("item_index") + 1),
            "column 'item_index': it must be the number of its",
        ),
        (
            replaced("item_info", category=pl.col("category") + 1),
            "column 'category': it must be 0, for row 0 is padding",
        ),
        (replaced("item_info", category=pl.lit("food")), "column 'category': it must be integers, got String"),
        (replaced("user_info", full_item_seq=LISTS.list.len()), "column 'full_item_seq': it must be lists of integers"),
        (replaced("user_info", full_item_seq=LISTS.list.eval(pl.element() - 1)), r"it must be in \[1, 40\), got 0"),
        (replaced("user_info", full_item_seq=LISTS.list.eval(pl.element() + 1)), r"it must be in \[1, 40\), got 40"),
        (
            replaced("user_info", full_item_seq=pl.when(LISTS.list.len() == 0).then(None).otherwise(LISTS)),
            "column 'full_item_seq': a history must not be null, got null in 1 rows",
        ),
        (
            replaced("user_info", full_item_seq=LISTS.list.concat(pl.lit(None, dtype=pl.Int64))),
            "column 'full_item_seq': it must not be null, got null in 12 rows",
        ),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, tables: Tables, change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_rows(write_rows(tmp_path / "rows", change(tables)))


@pytest.mark.parametrize("name", ["train", "valid", "test", "user_info", "item_info"])
def test_a_missing_file_and_its_missing_columns_are_named(tmp_path: Path, tables: Tables, name: str) -> None:
    without = {table: columns for table, columns in tables.items() if table != name}
    with pytest.raises(DataError, match=rf"{name}\.parquet: no such file"):
        load_rows(write_rows(tmp_path / "rows", without))
    needed = {"user_info": ["full_item_seq"], "item_info": ["item_index"]}
    for column in needed.get(name, ["label", "user_index", "item_index", "seq_len", "user_id"]):
        renamed = {**tables, name: tables[name].rename({column: "other"})}
        with pytest.raises(DataError, match=rf"{name}\.parquet: no column '{column}'; the columns are .*other"):
            load_rows(write_rows(tmp_path / column, renamed))


def test_a_context_feature_of_training_is_wanted_in_every_part(tmp_path: Path, tables: Tables) -> None:
    altered = {**tables, "valid": tables["valid"].drop("hour")}
    with pytest.raises(DataError, match=r"valid\.parquet: no column 'hour'"):
        load_rows(write_rows(tmp_path / "rows", altered))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the file is damaged: JSONDecodeError"),
        ('{"features": [{"tab": {"type": "categorical"}}]}', "the file is damaged: KeyError: 'vocab_size'"),
        ('{"features": [{"tab": {"type": "numeric"}}]}', "feature 'tab': the type must be .*, got 'numeric'"),
    ],
)
def test_a_damaged_feature_map_is_refused(tmp_path: Path, text: str, message: str) -> None:
    folder = write_rows(tmp_path / "rows")
    (folder / "feature_map.json").write_text(text)
    with pytest.raises(DataError, match=rf"feature_map\.json: {message}"):
        load_rows(folder)


@pytest.mark.parametrize(
    "option",
    [
        {"negatives": 2},
        {"valid_fraction": 0.2},
        {"test_fraction": 0.2},
        {"valid_from": 1, "test_from": 2},
        {"min_item_count": 5},
        {"history": "all"},
    ],
)
def test_options_of_events_are_refused(folder: Path, option: dict[str, Any]) -> None:
    name = next(iter(option))
    with pytest.raises(DataError, match=f"{name} makes samples of events, but prepared rows .*, got {option[name]!r}"):
        load_rows(folder, DataOptions(**option))


def test_settings_of_events_are_refused(folder: Path) -> None:
    for name, value in {"user_col": "user_index", "item_features": ("category",), "label_col": "label"}.items():
        with pytest.raises(DataError, match=f"{name} names columns of events"):
            open_dataset(DataSettings(dataset="rows", path=str(folder), **{name: value}))
    with pytest.raises(DataError, match="rows: path must name the folder"):
        open_dataset(DataSettings(dataset="rows"))
    with pytest.raises(DataError, match="missing: no such folder"):
        load_rows(folder / "missing")


def test_saved_features_are_read_back(tmp_path: Path, folder: Path) -> None:
    features = load_rows(folder).vocabularies
    features.save(tmp_path)
    assert load_vocabularies(tmp_path) == features
    with pytest.raises(DataError, match=r"vocabularies\.json: it was made for rows and not for events"):
        Vocabularies.load(tmp_path)
    path = tmp_path / "vocabularies.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 7}))
    with pytest.raises(DataError, match=r"vocabularies\.json: format must be 1, got 7"):
        load_vocabularies(tmp_path)
    path.write_text('{"format": 1, "kind": "rows"}')
    with pytest.raises(DataError, match=r"vocabularies\.json: the file is damaged"):
        load_vocabularies(tmp_path)
    of_events = load_dataset(make_events(rows=200), Schema()).vocabularies
    of_events.save(tmp_path)
    assert load_vocabularies(tmp_path).features == of_events.features


def test_other_rows_are_read_under_the_ids_of_training(tmp_path: Path, folder: Path, tables: Tables) -> None:
    known = load_rows(folder).vocabularies
    assert isinstance(known, RowFeatures)
    other = write_rows(tmp_path / "other", make_rows(users=5, items=20, rows=60, seed=3))
    assert load_rows(other, vocabularies=known).features == known.features
    more_items = write_rows(tmp_path / "more", make_rows(items=200))
    with pytest.raises(DataError, match="column 'product_id': the ids of training are below 100, got 198"):
        load_rows(more_items, vocabularies=known)
    renamed = {**tables, "item_info": tables["item_info"].rename({"category": "brand"})}
    with pytest.raises(DataError, match="must be those of training, product_id, category, got product_id, brand"):
        load_rows(write_rows(tmp_path / "renamed", renamed), vocabularies=known)
