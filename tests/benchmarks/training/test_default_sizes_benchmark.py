"""The benchmark of sizes that follow the data: its tables of events, and the table of the docs."""

from __future__ import annotations

import json

import polars as pl
import pytest
from project_root import ROOT

from benchmarks.result_files import RESULTS
from benchmarks.training.default_sizes import table
from benchmarks.training.synthetic_events import TableSize, make_table


def test_the_table_of_the_docs_is_that_of_the_results() -> None:
    data = json.loads((RESULTS / "default_sizes.json").read_text())
    page = (ROOT / "docs" / "guides" / "default_sizes.md").read_text()
    _, _, rest = page.partition("<!-- default sizes -->\n")
    shown, mark, _ = rest.partition("<!-- /default sizes -->")
    assert data["complete"]
    assert mark
    assert shown.splitlines() == list(table(data["runs"]))


@pytest.mark.parametrize("labelled", [False, True])
def test_tables_of_the_benchmark_repeat_and_have_structure(labelled: bool) -> None:
    size = TableSize(4000, 50, 100)
    events = make_table(size, labelled=labelled, seed=3)
    assert events.equals(make_table(size, labelled=labelled, seed=3))
    assert not events.equals(make_table(size, labelled=labelled, seed=4))
    assert events.height == 4000
    assert events["timestamp"].is_sorted()
    taken = events.filter(pl.col("label") == 1) if labelled else events
    shares = (
        taken.group_by("user_id", "category").len().group_by("user_id").agg(pl.col("len").max() / pl.col("len").sum())
    )
    assert shares["len"].mean() > 3 / 20  # of the category that a user takes most, of 20
    assert taken.group_by("user_id", "item_id").len()["len"].max() > 3
