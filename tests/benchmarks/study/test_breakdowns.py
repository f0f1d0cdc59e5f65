"""Metrics by what was known before a sample, against loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rows_factory import make_timed_rows, write_rows

from benchmarks.study.breakdowns import by_history, by_item_age, by_ranges
from lmn_model.data import Dataset
from lmn_model.data.rows.load import load_rows
from lmn_model.training.evaluation.metrics import auc, log_loss

DAY = 86_400 * 10**6


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Rows whose moments are days, as datetimes."""
    tables = make_timed_rows(users=12, items=250, events=500, rows=300, moments=150)
    for name in ("train", "valid", "test"):
        moments = (pl.col("timestamp") * DAY).cast(pl.Datetime("us"))
        tables[name] = tables[name].with_columns(moments.alias("timestamp"))
    lists = pl.col("full_time_seq").list.eval((pl.element() * DAY).cast(pl.Datetime("us")))
    tables["user_info"] = tables["user_info"].with_columns(lists)
    return load_rows(write_rows(tmp_path_factory.mktemp("prepared") / "rows", tables))


def scores_of(dataset: Dataset) -> np.ndarray:
    return np.random.default_rng(0).normal(size=len(dataset.test)).astype(np.float32)


def test_item_age_is_that_of_loops(dataset: Dataset) -> None:
    split, scores = dataset.test, scores_of(dataset)
    histories = split.tables.histories
    places: dict[str, list[int]] = {"none": [], "young": [], "old": []}
    for row in range(len(split)):
        times = histories.times[histories.items == split.items[row]]
        before = times[times < split.timestamps[row]]
        age = (split.timestamps[row] - before.min()) / DAY if len(before) else None
        places["none" if age is None else "young" if age < 30 else "old"].append(row)
    found = by_item_age(dataset, split, scores)
    assert [(part["from"], part["to"]) for part in found] == [(None, 0), (0, 30), (30, None)]
    for part, rows in zip(found, places.values(), strict=True):
        assert part["rows"] == len(rows) > 5
        assert part["auc"] == pytest.approx(auc(split.labels[rows], scores[rows]))
        assert part["log_loss"] == pytest.approx(log_loss(split.labels[rows], scores[rows]))
        assert part["users"] == len(set(split.users[rows].tolist()))


def test_history_is_counted_before_the_sample(dataset: Dataset) -> None:
    split, scores = dataset.test, scores_of(dataset)
    histories = split.tables.histories
    owners = np.repeat(np.arange(len(histories.starts) - 1), np.diff(histories.starts))
    seen = [
        int(((owners == user) & (histories.times < moment)).sum())
        for user, moment in zip(split.users, split.timestamps, strict=True)
    ]
    found = by_history(split, scores)
    assert sum(part["rows"] for part in found) == len(split)
    for part in found:
        inside = [row for row, count in enumerate(seen) if part["from"] <= count < (part["to"] or 10**9)]
        assert part["rows"] == len(inside)


def test_a_range_of_one_class_has_no_auc(dataset: Dataset) -> None:
    split = dataset.test
    (low, high) = by_ranges(split, scores_of(dataset), split.labels, (0, 1), with_loss=False)
    assert low["auc"] is high["auc"] is low["log_loss"] is None
    assert low["rows"] + high["rows"] == len(split)
    assert len(by_ranges(split, scores_of(dataset), split.labels, (0, 1, 2))) == 2


def test_without_dates_there_is_no_age(tmp_path: Path) -> None:
    rows = load_rows(write_rows(tmp_path / "rows", make_timed_rows()))
    assert by_item_age(rows, rows.test, scores_of(rows)) == []
