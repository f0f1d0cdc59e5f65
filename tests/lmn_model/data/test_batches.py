"""The loader's order, resumption and thread, new and found events, saved ids, and pairs to predict."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from batch_fields import FIELDS, OPTIONAL, same
from events_factory import make_events
from project_root import ROOT
from rows_factory import make_rows, write_rows

from lmn_model.data import (
    Batch,
    BatchLoader,
    DataError,
    DataOptions,
    Dataset,
    Schema,
    Split,
    Vocabularies,
    load_dataset,
    load_rows,
    prepare_pairs,
)

SCHEMA = Schema(user_features=("segment",), item_features=("category",), context_features=("hour", "price"))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(make_events(rows=600), SCHEMA, DataOptions(window=7))


@pytest.fixture(scope="module", params=["events", "labelled", "rows"])
def searched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A data set of each kind whose batches hold what a search by category found."""
    options = DataOptions(window=7, search_by="category", search_window=4)
    if request.param == "rows":
        return load_rows(write_rows(tmp_path_factory.mktemp("rows") / "mine"), options)
    labelled = request.param == "labelled"
    schema = Schema(item_features=("category",), context_features=("hour",), label="label" if labelled else None)
    return load_dataset(make_events(rows=600, users=15, label=labelled), schema, options)


def threads() -> int:
    return sum(thread.name.startswith("lmn-batches") for thread in threading.enumerate())


def test_batches_have_the_types_and_shapes_of_the_interface(dataset: Dataset) -> None:
    batch = next(iter(BatchLoader(dataset.train, 32)))
    assert len(batch) == 32
    assert {name: (getattr(batch, name).dtype, tuple(getattr(batch, name).shape)) for name in FIELDS} == {
        "user": (torch.int64, (32, 2)),
        "item": (torch.int64, (32, 2)),
        "context": (torch.int64, (32, 1)),
        "numeric": (torch.float32, (32, 1)),
        "history": (torch.int64, (32, 7, 2)),
        "history_mask": (torch.bool, (32, 7)),
        "label": (torch.float32, (32,)),
        "group": (torch.int64, (32,)),
    }
    moved = batch.to("meta")
    assert all(getattr(moved, name).device.type == "meta" for name in FIELDS)
    assert all(getattr(moved, name) is None for name in OPTIONAL)


def test_optional_fields_have_the_types_and_shapes_of_the_interface(searched: Dataset) -> None:
    batch = next(iter(BatchLoader(searched.train, 32, new_events=True, feedback=True, start=1)))
    events, labels = len(batch.new_users), len(batch.feedback_users)
    assert min(events, labels) > 0
    assert {name: (getattr(batch, name).dtype, tuple(getattr(batch, name).shape)) for name in OPTIONAL} == {
        "found": (torch.int64, (32, 4, 2)),
        "found_mask": (torch.bool, (32, 4)),
        "new_items": (torch.int64, (events, 2)),
        "new_users": (torch.int64, (events,)),
        "feedback_items": (torch.int64, (labels, 2)),
        "feedback_users": (torch.int64, (labels,)),
        "feedback_labels": (torch.float32, (labels,)),
    }
    moved = batch.to("meta")
    assert all(getattr(moved, name).device.type == "meta" for name in OPTIONAL)


def events_before(split: Split, row: int) -> list[list[int]]:
    """Features of all events of the user before the sample, oldest first."""
    histories = split.tables.histories
    positions = range(histories.starts[split.users[row]], split.history_ends[row])
    return [split.tables.items.ids[histories.items[position]].tolist() for position in positions]


@pytest.mark.parametrize("batch_size", [1, 37, 10_000])
@pytest.mark.parametrize("part", ["train", "test"])
def test_new_events_are_those_that_no_earlier_sample_of_the_user_saw(
    searched: Dataset, part: str, batch_size: int
) -> None:
    split: Split = getattr(searched, part)
    seen: dict[int, int] = {}
    row = 0
    for batch in BatchLoader(split, batch_size, new_events=True, writes="samples"):
        expected = []
        for place in range(len(batch)):
            user, history = int(split.users[row]), events_before(split, row)
            expected += [[int(batch.user[place, 0]), *event] for event in history[seen.get(user, 0) :]]
            seen[user] = max(seen.get(user, 0), len(history))
            row += 1
        found = torch.column_stack([batch.new_users, batch.new_items]).tolist()
        assert found == expected
    assert row == len(split)
    assert sum(seen.values()) > len(seen) > 5


def test_new_events_continue_where_an_earlier_loader_stopped(searched: Dataset) -> None:
    full = list(BatchLoader(searched.train, 50, new_events=True, prefetch=0))
    rest = list(BatchLoader(searched.train, 50, new_events=True, start=2))
    assert all(same(left, right) for left, right in zip(rest, full[2:], strict=True))
    assert not same(full[2], next(iter(BatchLoader(searched.train, 50, start=2))))


def test_new_events_of_pairs_in_any_order_come_once(dataset: Dataset) -> None:
    frame = make_events(rows=600)
    pairs = frame.select("user_id", "item_id", "hour", "price", "timestamp").sample(fraction=1.0, shuffle=True, seed=2)
    split = prepare_pairs(pairs, frame, SCHEMA, dataset.vocabularies, 7)
    seen: dict[int, int] = {}
    for row, batch in enumerate(BatchLoader(split, 1, new_events=True, writes="samples")):
        user, history = int(split.users[row]), events_before(split, row)
        assert batch.new_items.tolist() == history[seen.get(user, 0) :]
        seen[user] = max(seen.get(user, 0), len(history))


@pytest.mark.parametrize("part", ["train", "test"])
def test_found_events_are_the_newest_with_the_value_of_the_candidate(searched: Dataset, part: str) -> None:
    split: Split = getattr(searched, part)
    batch = split.batch(np.arange(len(split)))
    lengths = set()
    for row in range(len(split)):
        alike = [event for event in events_before(split, row) if event[1] == batch.item[row, 1]][-4:]
        lengths.add(len(alike))
        assert batch.found[row].tolist() == [[0, 0]] * (4 - len(alike)) + alike
        assert batch.found_mask[row].tolist() == [False] * (4 - len(alike)) + [True] * len(alike)
    assert lengths == {0, 1, 2, 3, 4}


def test_a_search_by_the_item_itself_and_with_a_window_beyond_every_history() -> None:
    frame = make_events(rows=400, users=8, items=12)
    split = load_dataset(frame, Schema(), DataOptions(search_by="item_id", search_window=500)).test
    batch = split.batch(np.arange(len(split))[::-1])
    for place, row in enumerate(range(len(split))[::-1]):
        alike = sum(event == batch.item[place].tolist() for event in events_before(split, row))
        assert batch.found_mask[place].sum() == alike
        assert (batch.found[place, 500 - alike :] == batch.item[place]).all()


@pytest.mark.parametrize("name", ["brand", "hour", "segment", ""])
def test_a_search_by_what_is_no_item_feature_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"search_by: there is no item feature '{name}'; there are item_id, category"):
        load_dataset(make_events(rows=200), SCHEMA, DataOptions(search_by=name))
    with pytest.raises(DataError, match="search_window must be at least 1, got 0"):
        DataOptions(search_window=0)


def test_events_at_or_after_a_sample_change_nothing_of_it_in_rows(tmp_path: Path) -> None:
    options = DataOptions(window=7, search_by="category", search_window=4)
    tables = make_rows()
    split = load_rows(write_rows(tmp_path / "before", tables), options).valid
    rng = np.random.default_rng(0)
    lists = tables["user_info"]["full_item_seq"].to_list()
    for row in rng.choice(len(split), 8, replace=False):
        user = split.users[row]
        past = int(split.history_ends[row] - split.tables.histories.starts[user])
        later = rng.integers(1, 40, len(lists[user]) - past).tolist()
        altered = [lists[u][:past] + later if u == user else rng.permutation(lists[u]).tolist() for u in range(12)]
        info = pl.DataFrame({"full_item_seq": altered}, schema={"full_item_seq": pl.List(pl.Int64)})
        folder = write_rows(tmp_path / str(row), {**tables, "user_info": info})
        found = load_rows(folder, options).valid.batch(np.array([row]), new_events=True)
        assert same(found, split.batch(np.array([row]), new_events=True))


def test_events_at_or_after_a_pair_change_nothing_of_it() -> None:
    frame = make_events(rows=600, users=15)
    vocabularies = load_dataset(frame, SCHEMA).vocabularies
    pairs = frame[::7].select("user_id", "item_id", "hour", "price", "timestamp")

    def batch(events: pl.DataFrame, row: int) -> Batch:
        split = prepare_pairs(pairs, events, SCHEMA, vocabularies, 7, search_by="category", search_window=4)
        return split.batch(np.array([row]), new_events=True, writes="samples")

    items = frame["item_id"].unique().sort()
    for row in range(10, len(pairs), 9):
        late = pl.col("timestamp") >= pairs["timestamp"][row]
        altered = frame.with_columns(item_id=pl.when(late).then(items[0]).otherwise("item_id"))
        assert altered["item_id"].to_list() != frame["item_id"].to_list()
        assert same(batch(altered, row), batch(frame, row))


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("order", ["time", "shuffle"])
def test_an_epoch_holds_every_sample_once(dataset: Dataset, order: Any, prefetch: int) -> None:
    loader = BatchLoader(dataset.train, 100, order=order, prefetch=prefetch)
    batches = list(loader)
    assert len(batches) == len(loader) == -(-len(dataset.train) // 100)
    assert [len(batch) for batch in batches[:-1]] == [100] * (len(batches) - 1)
    groups = torch.cat([batch.group for batch in batches]).numpy()
    in_order = np.array_equal(groups, dataset.train.groups)
    assert in_order == (order == "time")
    np.testing.assert_array_equal(np.sort(groups), np.sort(dataset.train.groups))


def test_the_shuffle_depends_on_seed_and_epoch_alone(dataset: Dataset) -> None:
    def first(seed: int, epoch: int, prefetch: int = 2) -> Batch:
        return next(iter(BatchLoader(dataset.train, 64, order="shuffle", seed=seed, epoch=epoch, prefetch=prefetch)))

    assert same(first(3, 1), first(3, 1, prefetch=0))
    assert not same(first(3, 1), first(3, 2))
    assert not same(first(3, 1), first(4, 1))


@pytest.mark.parametrize("order", ["time", "shuffle"])
def test_a_loader_continues_where_another_stopped(dataset: Dataset, order: Any) -> None:
    full = list(BatchLoader(dataset.train, 50, order=order, seed=5, epoch=2))
    rest = BatchLoader(dataset.train, 50, order=order, seed=5, epoch=2, start=7)
    assert len(rest) == len(full) - 7
    assert all(same(left, right) for left, right in zip(rest, full[7:], strict=True))
    assert list(BatchLoader(dataset.train, 50, start=len(full))) == []


def test_the_thread_ends_when_the_consumer_stops(dataset: Dataset) -> None:
    before = threads()
    iterator = iter(BatchLoader(dataset.train, 8))
    next(iterator)
    assert threads() == before + 1
    iterator.close()
    assert threads() == before
    abandoned = iter(BatchLoader(dataset.train, 8))
    next(abandoned)
    del abandoned
    gc.collect()
    assert threads() == before


def test_the_thread_ends_when_the_consumer_fails(dataset: Dataset) -> None:
    def train() -> None:
        for _ in BatchLoader(dataset.train, 8):
            raise RuntimeError("the step failed")

    with pytest.raises(RuntimeError, match="the step failed"):
        train()
    gc.collect()
    assert threads() == 0


def test_an_error_in_the_thread_reaches_the_consumer(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(split: object, rows: np.ndarray[Any, Any], **options: object) -> Batch:
        raise MemoryError("no room for a batch")

    monkeypatch.setattr("lmn_model.data.splits.Split.batch", broken)
    with pytest.raises(MemoryError, match="no room for a batch"):
        next(iter(BatchLoader(dataset.train, 8)))
    assert threads() == 0


def test_a_program_ends_with_an_iterator_half_used() -> None:
    program = (
        "from lmn_model.data import *; from events_factory import make_events\n"
        "split = load_dataset(make_events(rows=300), Schema()).train\n"
        "batches = iter(BatchLoader(split, 8)); next(batches); print('end')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"order": "random"}, "order must be 'time' or 'shuffle', got 'random'"),
        ({"start": 10_000}, r"start must be <= \d+, the number of batches, got 10000"),
        ({"epoch": -1}, "epoch must be >= 0, got -1"),
        ({"prefetch": -1}, "prefetch must be >= 0, got -1"),
        ({"order": "shuffle", "new_events": True}, "new_events needs order 'time', got 'shuffle'"),
    ],
)
def test_bad_arguments_are_refused(dataset: Dataset, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchLoader(dataset.train, **{"batch_size": 8, **arguments})


def test_saved_ids_are_read_back_whole(dataset: Dataset, tmp_path: Path) -> None:
    path = dataset.vocabularies.save(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["vocabularies.json"]
    loaded = Vocabularies.load(tmp_path)
    assert loaded.to_dict() == dataset.vocabularies.to_dict()
    assert loaded.features == dataset.features
    again = load_dataset(make_events(rows=600), SCHEMA, DataOptions(window=7), vocabularies=loaded)
    rows = np.arange(len(dataset.test))
    assert same(again.test.batch(rows), dataset.test.batch(rows))
    assert path == tmp_path / "vocabularies.json"


def test_a_failed_save_leaves_the_old_file(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dataset.vocabularies.save(tmp_path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        dataset.vocabularies.save(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["vocabularies.json"]
    assert path.read_bytes() == before


def test_damaged_files_of_ids_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"vocabularies\.json: no such file"):
        Vocabularies.load(tmp_path)
    path = dataset.vocabularies.save(tmp_path)
    full = path.read_text()
    plain = json.loads(full)
    for text in (full[: len(full) // 2], "[]", json.dumps({**plain, "users": None}), json.dumps({"format": 1})):
        path.write_text(text)
        with pytest.raises(DataError, match=r"vocabularies\.json: the file is damaged: "):
            Vocabularies.load(tmp_path)
    path.write_text(json.dumps({**plain, "format": 9}))
    with pytest.raises(DataError, match=r"vocabularies\.json: format must be 1, got 9"):
        Vocabularies.load(tmp_path)
