"""Times of prepared rows: the order they give, what is saved and described, and each refusal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rows_factory import SPLITS, make_rows, make_timed_rows, write_rows

from lmn_model.data import BatchLoader, DataError, DataOptions, load_rows, load_vocabularies
from lmn_model.training.runs.fingerprint import data_fingerprint

Tables = dict[str, pl.DataFrame]
START = datetime(2024, 5, 1)


@pytest.fixture(scope="module")
def tables() -> Tables:
    return make_timed_rows()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tables: Tables) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "timed", tables)


def as_datetimes(tables: Tables, unit: str = "us", zone: str | None = None) -> Tables:
    """Times as datetimes, a time of 1 being an hour after ``START``."""
    hours, kind = pl.element() * timedelta(hours=1) + pl.lit(START), pl.Datetime(unit, zone)  # type: ignore[arg-type]
    lists = pl.col("full_time_seq").list.eval(hours.dt.replace_time_zone(zone)).cast(pl.List(kind))
    column = (pl.col("timestamp") * timedelta(hours=1) + pl.lit(START)).dt.replace_time_zone(zone).cast(kind)
    changed = {name: tables[name].with_columns(timestamp=column) for name in SPLITS}
    return {**tables, **changed, "user_info": tables["user_info"].with_columns(full_time_seq=lists)}


def test_samples_are_in_the_order_of_time_and_those_of_one_moment_in_that_of_the_file(
    folder: Path, tables: Tables
) -> None:
    dataset = load_rows(folder)
    assert [each.name for each in dataset.features.context] == ["tab"]
    assert dataset.vocabularies.clock == "integer"
    for name in SPLITS:
        rows, split = tables[name].sort("timestamp", maintain_order=True), getattr(dataset, name)
        assert rows["timestamp"].n_unique() < rows.height
        assert split.timestamps.tolist() == rows["timestamp"].to_list()
        assert split.users.tolist() == rows["user_index"].to_list()
        assert split.items.tolist() == rows["item_index"].to_list()
        assert split.labels.tolist() == rows["label"].to_list()
    histories = dataset.train.tables.histories
    assert histories.items.tolist() == tables["user_info"]["full_item_seq"].explode().drop_nulls().to_list()
    assert histories.times.tolist() == tables["user_info"]["full_time_seq"].explode().drop_nulls().to_list()


@pytest.mark.parametrize(("unit", "zone"), [("us", None), ("ms", "UTC"), ("ns", "Asia/Tokyo")])
def test_datetimes_are_microseconds_in_utc(
    tmp_path: Path, folder: Path, tables: Tables, unit: str, zone: str | None
) -> None:
    dataset, integers = load_rows(write_rows(tmp_path / "rows", as_datetimes(tables, unit, zone))), load_rows(folder)
    start = int((START - datetime(1970, 1, 1)) / timedelta(microseconds=1))
    start -= 9 * 3600 * 10**6 if zone == "Asia/Tokyo" else 0
    hour = 3600 * 10**6
    assert dataset.vocabularies.clock == "datetime"
    assert dataset.test.timestamps.tolist() == (integers.test.timestamps * hour + start).tolist()
    times = dataset.train.tables.histories.times
    assert times.tolist() == (integers.train.tables.histories.times * hour + start).tolist()


def test_dates_and_other_integers_are_times_too(tmp_path: Path, tables: Tables) -> None:
    narrow = {name: tables[name].cast({"timestamp": pl.Int32}) for name in SPLITS}
    info = tables["user_info"].cast({"full_time_seq": pl.List(pl.UInt16)})
    again = load_rows(write_rows(tmp_path / "rows", {**tables, **narrow, "user_info": info}))
    assert data_fingerprint(again) == data_fingerprint(load_rows(write_rows(tmp_path / "wide", tables)))


def test_moments_are_described_and_saved(tmp_path: Path, tables: Tables) -> None:
    dataset = load_rows(write_rows(tmp_path / "rows", as_datetimes(tables)))
    described: Any = dataset.describe()
    first, last = (getattr(tables["valid"]["timestamp"], name)() for name in ("min", "max"))
    moments = ((START + timedelta(hours=hours)).isoformat() for hours in (first, last))
    assert (described["valid"]["first"], described["valid"]["last"]) == tuple(moments)
    assert "unseen_users" not in described["valid"]
    assert f"from {described['train']['first']} to {described['train']['last']} | valid" in dataset.summary()
    dataset.vocabularies.save(tmp_path)
    assert load_vocabularies(tmp_path) == dataset.vocabularies
    path = tmp_path / "vocabularies.json"
    path.write_text(path.read_text().replace('"datetime"', '"sundial"'))
    with pytest.raises(DataError, match="the file is damaged: ValueError: clock must be one of datetime, integer"):
        load_vocabularies(tmp_path)


def test_other_rows_have_the_clock_of_their_own_files(tmp_path: Path, folder: Path) -> None:
    known = load_rows(folder).vocabularies
    plain = make_rows(users=4, items=20, rows=60)
    for name in SPLITS:
        plain[name] = plain[name].drop("hour")
    assert load_rows(write_rows(tmp_path / "plain", plain), vocabularies=known).vocabularies.clock is None  # type: ignore[arg-type]
    again = load_rows(folder, vocabularies=known)  # type: ignore[arg-type]
    assert again.vocabularies == known


def test_users_without_a_sample_take_ids_that_no_sample_has(tmp_path: Path, tables: Tables) -> None:
    apart = {name: tables[name].with_columns(user_id=pl.col("user_index") * 2 + 1) for name in SPLITS}
    lists = pl.concat([tables["user_info"], pl.DataFrame({"full_item_seq": [[3]], "full_time_seq": [[5]]})])
    folder = write_rows(tmp_path / "rows", {**tables, **apart, "user_info": lists})
    dataset = load_rows(folder)
    assert dataset.train.tables.users.ids[:, 0].tolist() == [1, 2, 5, 7, 9, 11, 13, 15, 17, 3]
    assert dataset.features.user[0].size == 18
    untimed = {name: table.drop("timestamp", strict=False) for name, table in {**tables, **apart}.items()}
    untimed["user_info"] = lists.drop("full_time_seq")
    without = load_rows(write_rows(tmp_path / "untimed", untimed))
    assert without.train.tables.users.ids[:, 0].tolist() == [1, 0, 5, 7, 9, 11, 13, 15, 17, 0]


def test_an_id_of_a_user_without_a_sample_is_one_that_training_has(tmp_path: Path, folder: Path) -> None:
    known = load_rows(folder).vocabularies
    assert known.features.user[0].size == 10
    more = make_timed_rows(users=14, items=20, seed=4)
    for name in SPLITS:  # ids 1, 3, ..., 9, and users without a sample for 2, 4, 6 and 8
        more[name] = more[name].with_columns(user_index=pl.lit(0), user_id=pl.lit(1), seq_len=pl.lit(0))
    ids = load_rows(write_rows(tmp_path / "more", more), vocabularies=known).train.tables.users.ids[:, 0]  # type: ignore[arg-type]
    assert ids.tolist() == [*range(1, 10), 0, 0, 0, 0, 0]


def test_limits_of_rows_leave_all_events_to_be_written(folder: Path) -> None:
    few = load_rows(folder, DataOptions(max_train_rows=10)).train
    times = np.sort(load_rows(folder).train.tables.histories.times)
    written = sum(len(batch.new_items) for batch in BatchLoader(few, 4, new_events=True))
    assert written == (times <= few.timestamps[-1]).sum() > 60


@pytest.mark.parametrize("table", [*SPLITS, "user_info"])
def test_a_file_without_times_is_named(tmp_path: Path, tables: Tables, table: str) -> None:
    column = "full_time_seq" if table == "user_info" else "timestamp"
    other, theirs = ("user_info", "full_time_seq") if table != "user_info" else ("train", "timestamp")
    altered = {**tables, table: tables[table].drop(column)}
    message = rf"{table}\.parquet: no column '{column}', but .*{other}\.parquet has '{theirs}': all files .* or none"
    with pytest.raises(DataError, match=message):
        load_rows(write_rows(tmp_path / "rows", altered))


def at(row: int, value: Any, column: str = "timestamp") -> Callable[[pl.DataFrame], pl.DataFrame]:
    def change(table: pl.DataFrame) -> pl.DataFrame:
        values = table[column].to_list()
        values[row] = value
        return table.with_columns(pl.Series(column, values))

    return change


def with_list(change: Callable[[list[int]], Any]) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def altered(table: pl.DataFrame) -> pl.DataFrame:
        lists = [each.to_list() for each in table["full_time_seq"]]
        lists[3] = change(lists[3])
        return table.with_columns(pl.Series("full_time_seq", lists, dtype=pl.List(pl.Int64)))

    return altered


TIMES = pl.col("full_time_seq")
REFUSED: dict[str, tuple[str, Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "one time too few": (
        "user_info", with_list(lambda times: times[:-1]),
        r"column 'full_time_seq': it must have as many times as 'full_item_seq' has items, got \d+ \(the first at 3\)",
    ),
    "going back": (
        "user_info", with_list(lambda times: [*times[:4], times[3] - 1, *times[5:]]),
        r"column 'full_time_seq': it must never decrease within a list, got (\d+) after \d+ \(the first at 3\)",
    ),
    "null": (
        "user_info", with_list(lambda times: [None, *times[1:]]),
        r"column 'full_time_seq': timestamps must not be null or empty, got 1 such rows, .* of all lists",
    ),
    "no list of times": (
        "user_info", with_list(lambda times: None),
        "column 'full_time_seq': a history must not be null, got null in 1 rows",
    ),
    "no lists": (
        "user_info", lambda table: table.with_columns(full_time_seq=TIMES.list.len()),
        "column 'full_time_seq': it must be lists of times, got UInt32",
    ),
    "lists of floats": (
        "user_info", lambda table: table.cast({"full_time_seq": pl.List(pl.Float64)}),
        "column 'full_time_seq': timestamps must be datetimes, dates, integers or ISO text, got Float64",
    ),
    "null in a sample": (
        "valid", at(4, None), "column 'timestamp': timestamps must not be null or empty, got 1 such rows, .* in row 5",
    ),
    "a sample at its newest event": (
        "test", lambda table: table.with_columns(seq_len=pl.col("seq_len") + (pl.col("user_index") == 4)),
        r"column 'timestamp': it must be after the first seq_len = \d+ events of user_index 4, got \d+ and an event at",
    ),
    "a split that begins in the one before": (
        "valid", at(7, 53), r"column 'timestamp': it must be after the last sample of the earlier split, at 53, got 53",
    ),
    "another clock": (
        "test",
        lambda table: table.with_columns(timestamp=pl.lit(START)),
        r"column 'timestamp': it must be integers as in .*user_info\.parquet, got datetimes",
    ),
    "another unit": (
        "test",
        lambda table: table.with_columns(timestamp=pl.col("timestamp") + 1_700_000_000_000),
        r"column 'timestamp': it must have the unit of .*user_info\.parquet, 8\d, got 17\d+ \(2023-.* milliseconds\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_times_that_cannot_be_are_refused(tmp_path: Path, tables: Tables, name: str) -> None:
    table, change, message = REFUSED[name]
    if name == "a split that begins in the one before":
        train = tables["train"]
        assert train["timestamp"].max() == 53
        tables = {**tables, "valid": tables["valid"].with_columns(seq_len=pl.lit(0))}
    folder = write_rows(tmp_path / "rows", {**tables, table: change(tables[table])})
    with pytest.raises(DataError, match=rf"{table}\.parquet: {message}"):
        load_rows(folder)


def test_times_of_users_without_events_will_do(tmp_path: Path, tables: Tables) -> None:
    empty = {"full_item_seq": [[]] * 9, "full_time_seq": [[]] * 9}
    altered = {name: tables[name].with_columns(seq_len=pl.lit(0)) for name in SPLITS}
    folder = write_rows(tmp_path / "rows", {**as_datetimes({**tables, **altered}), "user_info": pl.DataFrame(empty)})
    dataset = load_rows(folder)
    assert dataset.vocabularies.clock == "datetime"
    assert sum(len(batch.new_items) for batch in BatchLoader(dataset.train, 16, new_events=True)) == 0


@pytest.mark.parametrize(("table", "column"), [("train", "timestamp"), ("user_info", "full_time_seq")])
def test_the_fingerprint_covers_times(tmp_path: Path, tables: Tables, table: str, column: str) -> None:
    def doubled(shift: int) -> Tables:
        """Times twice as far apart, so that one of ``column`` can move a little and pass no other."""
        each = {name: tables[name].with_columns(pl.col("timestamp") * 2) for name in SPLITS}
        each["user_info"] = tables["user_info"].with_columns(TIMES.list.eval(pl.element() * 2))
        moved = pl.col(column) + shift if column == "timestamp" else TIMES.list.eval(pl.element() - shift)
        return {**tables, **each, table: each[table].with_columns(moved)}

    one, other = (load_rows(write_rows(tmp_path / f"by {shift}", doubled(shift))) for shift in (0, 1))
    assert one.train.tables.histories.items.tolist() == other.train.tables.histories.items.tolist()
    assert one.train.users.tolist() == other.train.users.tolist()
    assert data_fingerprint(one) != data_fingerprint(other)
