"""The meaning of the values of a CSV: kinds, numbers, times, lines that cannot be read."""

from __future__ import annotations

import gzip
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lmn_model.data import DataError, DataOptions, Dataset, Vocabularies, load_dataset, load_source, read_table
from lmn_model.data.clocks import check_unit
from lmn_model.data.events.times import check_times
from lmn_model.data.tables.table import Column
from lmn_model.data.tables.text_records import raw_records

ROWS = 60


def csv_of(path: Path, separator: str = ",", **columns: list[str]) -> Path:
    """A CSV of events, one a row and hour, with other columns beside or instead of the usual ones."""
    table = {
        "user_id": [f"u{row % 4}" for row in range(ROWS)],
        "item_id": [f"{row % 7:03d}" for row in range(ROWS)],
        "timestamp": [str(1_700_000_000 + 3600 * row) for row in range(ROWS)],
        "label": [str(row * 5 % 3 % 2) for row in range(ROWS)],
        **columns,
    }
    lines = [separator.join(table), *(separator.join(row) for row in zip(*table.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def loaded(path: Path, **schema: Any) -> Dataset:
    table, known = load_source("events", path, **{"label": "label", **schema})
    return load_dataset(table, known, DataOptions(valid_fraction=0.2, test_fraction=0.2, user_rates=False))


def kinds(path: Path, **schema: Any) -> dict[str, str]:
    vocabularies = loaded(path, **schema).vocabularies
    assert isinstance(vocabularies, Vocabularies)
    return dict(vocabularies.kinds)


def mixed(*values: str) -> list[str]:
    return [values[row % len(values)] for row in range(ROWS)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (("1.5", "2", "3"), "numeric"),
        ((" 1.5", "2.25 "), "numeric"),
        (("0.1", "-.5", "1e-3"), "numeric"),
        (("1", "2", "30"), "categorical"),
        (("07001", "10001"), "categorical"),
        (("07001", "A12", "10001"), "categorical"),
        (("12", "", "13"), "categorical"),
        (("12", "NA", "13"), "categorical"),
        (("1e5", "2e5", "17"), "categorical"),
        (("1" * 42, "2" * 42), "categorical"),
        (("2020-11-12", "2020-11-13"), "categorical"),
        (("true", "false"), "categorical"),
        (("1.2.3", "2.0.1"), "categorical"),
        (("38", "38.5", "S", "M", "L", "XL"), "categorical"),
    ],
)
def test_the_kind_of_a_text_column(tmp_path: Path, values: tuple[str, ...], kind: str) -> None:
    path = csv_of(tmp_path / "e.csv", x=mixed(*values))
    assert kinds(path, context_features=("x",)) == {"x": kind}
    assert kinds(path, context_features=("x",), categorical=("x",)) == {"x": "categorical"}


@pytest.mark.parametrize("odd", ["$3.20", "3,20", "1 200.50", "12%", "unknown", "1.5.1"])
def test_a_value_that_is_no_number_among_numbers_is_refused(tmp_path: Path, odd: str) -> None:
    values = [f"{row}.5" for row in range(ROWS)]
    values[17] = odd if "," not in odd else f'"{odd}"'
    path = csv_of(tmp_path / "e.csv", price=values)
    shown = odd.replace("$", r"\$").replace(".", r"\.")
    with pytest.raises(
        DataError, match=rf"column 'price': line 19: 59 of its 60 values .* '{shown}' .*--categorical 'pri"
    ):
        loaded(path, context_features=("price",))
    with pytest.raises(DataError, match=rf"column 'price': line 19: .* must be a finite number .* got '{shown}'"):
        loaded(path, context_features=("price",), numeric=("price",))
    assert kinds(path, context_features=("price",), categorical=("price",)) == {"price": "categorical"}


@pytest.mark.parametrize("form", ["${}", '"{},5"', "{}%", "{} €", '"1,0{:02d}.50"'])
def test_a_column_in_another_notation_is_refused(tmp_path: Path, form: str) -> None:
    path = csv_of(tmp_path / "e.csv", price=[form.format(row) for row in range(ROWS)])
    with pytest.raises(DataError, match="column 'price': line 2: its values look like numbers of another notation"):
        loaded(path, context_features=("price",))


@pytest.mark.parametrize("blank", ["", "NA", "-", "\u2014", "nan", "null", "None", "?"])
def test_a_missing_number_is_refused_or_marked(tmp_path: Path, blank: str) -> None:
    values = [f"{row}.5" for row in range(ROWS)]
    values[17] = blank
    path = csv_of(tmp_path / "e.csv", price=values)
    with pytest.raises(DataError, match=r"column 'price': line 19: .* \(1 of 60 rows\); .*--missing-numbers indicator"):
        loaded(path, context_features=("price",))
    dataset = loaded(path, context_features=("price",), missing_numbers="indicator")
    assert dataset.features.numeric == ("price", "price is missing")
    numeric = dataset.train.batch(np.arange(len(dataset.train))).numeric
    assert numeric[17].tolist() == [0.0, 1.0]
    assert numeric[:, 1].sum() == 1
    saved = dataset.vocabularies.save(tmp_path).parent
    assert Vocabularies.load(saved).features == dataset.features


def test_whole_numbers_of_a_float_column_are_the_codes_of_a_csv(tmp_path: Path) -> None:
    codes = [12.0, None, 13.0, float("nan")]
    frame = pl.read_csv(csv_of(tmp_path / "e.csv"), infer_schema=False)
    frame = frame.with_columns(x=pl.Series([codes[row % 4] for row in range(ROWS)]))
    frame.write_parquet(tmp_path / "e.parquet")
    with pytest.raises(DataError, match=r"column 'x': row 2: .* got None .*--categorical 'x'"):
        loaded(tmp_path / "e.parquet", context_features=("x",))
    for path in (tmp_path / "e.parquet", csv_of(tmp_path / "e.csv", x=mixed("12", "", "13", ""))):
        vocabularies = loaded(path, context_features=("x",), categorical=("x",)).vocabularies
        assert vocabularies.encoder.vocabularies["x"].values.to_list() == [None, "12", "13"]  # type: ignore[union-attr]


def test_columns_that_nothing_uses_may_hold_anything(tmp_path: Path) -> None:
    odd = ["2020-99-99", "1" * 42, '12" pipe', "", "a|b", "\x00".strip("\x00"), "$", "é"]
    dataset = loaded(csv_of(tmp_path / "e.csv", odd=mixed(*odd), len=mixed("7", "x")))
    assert dataset.event_count == ROWS


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-03-01", datetime(2024, 3, 1)),
        ("2024-03-01 12:30", datetime(2024, 3, 1, 12, 30)),
        ("2024-03-01T12:30:05.25", datetime(2024, 3, 1, 12, 30, 5, 250_000)),
        ("2024-03-01T12:30:05Z", datetime(2024, 3, 1, 12, 30, 5)),
        ("2024-03-01 12:30:05+02:00", datetime(2024, 3, 1, 10, 30, 5)),
        ("2024-03-01 12:30:05-0130", datetime(2024, 3, 1, 14, 0, 5)),
    ],
)
def test_iso_times(text: str, moment: datetime) -> None:
    clock, times = check_times(Column(pl.Series([text]), "t", str))
    assert (clock, times[0]) == ("datetime", (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1))


def test_forms_of_iso_may_be_mixed_and_zones_may_not() -> None:
    _, times = check_times(Column(pl.Series(["2024-03-01 00:00:00.5", "2024-03-01", "2024-03-01T00:01"]), "t", str))
    assert (times - times[1]).to_list() == [500_000, 0, 60_000_000]
    with pytest.raises(DataError, match="must all name a zone or none, but '2024-03-01T00:00Z' does"):
        check_times(Column(pl.Series(["2024-03-01", "2024-03-01T00:00Z"]), "t", str))


@pytest.mark.parametrize("wrong", ["05/11/2020", "05-11-20", "12-11-2020", "2021-02-30", "soon", "1.6e9", "2020", ""])
def test_other_times_are_not_guessed(tmp_path: Path, wrong: str) -> None:
    times = [f"2024-01-{1 + row % 28:02d}" for row in range(ROWS)]
    times[40] = wrong
    with pytest.raises(DataError, match=r"column 'timestamp': .*line 42"):
        loaded(csv_of(tmp_path / "e.csv", timestamp=times))


def test_a_format_says_what_day_and_month_are(tmp_path: Path) -> None:
    days = [datetime(2020, 10, 20) + timedelta(days=row) for row in range(ROWS)]
    path = csv_of(tmp_path / "e.csv", timestamp=[f"{day:%d/%m/%Y}" for day in days])
    with pytest.raises(DataError, match=r"line 2: timestamps must be ISO 8601 .*--time-format"):
        loaded(path)
    dataset = loaded(path, time_format="%d/%m/%Y")
    assert dataset.describe()["train"]["first"] == "2020-10-20T00:00:00"  # type: ignore[index]
    assert dataset.train.timestamps[-1] < dataset.test.timestamps[0]
    path = csv_of(tmp_path / "e.csv", timestamp=[f"{day:%d/%m/%Y}" for day in reversed(days)])
    with pytest.raises(
        DataError,
        match=r"line 2: timestamps must have the format '%m/%d/%Y' of the training table, got '18/12/2020' \(36 of",
    ):
        loaded(path, time_format="%m/%d/%Y")


def test_units_of_integer_times_are_not_mixed(tmp_path: Path) -> None:
    seconds = [1_700_000_000 + 60 * row for row in range(ROWS)]
    with pytest.raises(
        DataError, match=r"must have one unit, but .* in line 2 looks like seconds and .* like milliseconds"
    ):
        loaded(
            csv_of(
                tmp_path / "e.csv",
                timestamp=[str(time * (1000 if row > 50 else 1)) for row, time in enumerate(seconds)],
            )
        )
    run = loaded(csv_of(tmp_path / "e.csv", timestamp=[str(time) for time in seconds])).vocabularies
    assert isinstance(run, Vocabularies)
    for scale, unit in ((1000, "milliseconds"), (10**6, "microseconds"), (1e-6, "small integers")):
        path = csv_of(tmp_path / "next.csv", timestamp=[str(int(time * scale)) for time in seconds])
        table, schema = load_source("events", path, label="label")
        with pytest.raises(DataError, match=f"unit of the run's, seconds such as 17.*, got {unit}"):
            load_dataset(table, schema, vocabularies=run)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "e.csv: the file is empty"),
        (b"\n\n", "e.csv: the file is empty"),
        (b"user_id,a,a\n", "line 1: names the column 'a' twice"),
        ("user_id,b\n".encode("utf-16"), "line 1: must be UTF-8 text, got UTF-16"),
        (b"user_id;item_id;timestamp\n1;2;3\n", "no column .*separated by ';', but a .csv has commas"),
        (b"user_id item_id timestamp\n1 2 3\n", "separated by ' '"),
        (b"196,242,3,881250949\n186,302,3,891717742\n", "first line must hold the names .* looks like values"),
        (b"User_ID,item_id,timestamp\n", "no column 'user_id'.*did you mean 'User_ID'"),
        (b"user_id,item_id,timestamp\n1,2,3\n4,5\n", "line 3: must have 3 fields like the header, got 2"),
        (b"user_id,item_id,timestamp\n1,2,3\n\n4,5,6,7\n", "line 4: must have 3 fields like the header, got 4"),
        (b'user_id,item_id,timestamp\n1,2,3\n4,"5,6\n7,8,9\n', "line 3: a quote may not be closed"),
        (b"user_id,item_id,timestamp\n1,2,3\n4,\xff,6\n", "line 3, column 'item_id': must be UTF-8 text"),
        (b'user_id,item_id,timestamp\n"1\n2",2,3\n4,,6\n', "item_id.*line 4"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_by_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "e.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(*load_source("events", tmp_path / "e.csv"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_blank_lines_and_marks_do_not_matter(tmp_path: Path, end: str, mark: bytes) -> None:
    text = csv_of(tmp_path / "e.csv", note=mixed('12" pipe', '"a, ""b"""', "")).read_text()
    expected = read_table(tmp_path / "e.csv").frame
    content = mark + (text.replace("\n", end) + end * 2).encode()
    (tmp_path / "other.csv").write_bytes(content)
    (tmp_path / "other.csv.gz").write_bytes(gzip.compress(content))
    for name in ("other.csv", "other.csv.gz"):
        assert read_table(tmp_path / name).frame.equals(expected), name
    assert expected["note"].to_list()[:3] == ['12" pipe', 'a, "b"', None]


def test_the_suffix_says_the_separator(tmp_path: Path) -> None:
    expected = read_table(csv_of(tmp_path / "x.tsv_backup.csv")).frame
    assert read_table(csv_of(tmp_path / "x.csv.tsv", separator="\t")).frame.equals(expected)


def test_folders_patterns_and_partitions_of_parquet(tmp_path: Path) -> None:
    frame = read_table(csv_of(tmp_path / "e.csv")).frame
    for part, day in enumerate(("07001", "2024-01-01", "2024-01-02")):
        folder = tmp_path / "hive" / f"day={day}"
        folder.mkdir(parents=True)
        frame.slice(20 * part, 20).write_parquet(folder / f"part-{part}.parquet")
        (tmp_path / "flat").mkdir(exist_ok=True)
        frame.slice(20 * part, 20).write_parquet(tmp_path / "flat" / f"{part}.parquet")
        (folder / "_SUCCESS").touch()
    hive = read_table(tmp_path / "hive").frame
    assert hive.drop("day").equals(read_table(tmp_path / "flat" / "*.parquet").frame)
    assert hive.drop("day").equals(read_table(tmp_path / "flat").frame)
    assert hive["day"].unique().sort().to_list() == ["07001", "2024-01-01", "2024-01-02"]
    assert read_table(tmp_path / "hive" / "day=*" / "*.parquet", ("day",)).frame["day"].equals(hive["day"].sort())
    with pytest.raises(DataError, match=r"missing\*\.parquet: no such file"):
        read_table(tmp_path / "missing*.parquet")
    with pytest.raises(DataError, match="flat: no column 'day'; the columns are 'user_id'"):
        read_table(tmp_path / "flat", ("day",))


def test_a_warning_says_that_values_with_lists_are_one_category(tmp_path: Path) -> None:
    genres = [f"g{row % 5}|g{row % 7}|g{row % 3}" for row in range(ROWS)]
    dataset = loaded(csv_of(tmp_path / "e.csv", genres=genres), context_features=("genres",))
    assert any("column 'genres': 100 % of its 36 values hold '|'" in each for each in dataset.warnings())


def test_a_missing_column_is_reported_before_the_rows_are_read(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "e.csv")
    path.write_bytes(path.read_bytes() + b"\xff" * 1000)  # what reading the rows would trip over
    with pytest.raises(DataError, match="no column 'sku'; the columns are 'user_id', 'item_id', 'timestamp', 'label'"):
        load_source("events", path, item="sku")


def test_a_constant_column_has_deviation_one(tmp_path: Path) -> None:
    dataset = loaded(csv_of(tmp_path / "e.csv", price=["0.1"] * 51 + ["0.2"] * 9), context_features=("price",))
    assert dataset.test.batch(np.arange(len(dataset.test))).numeric[-1, 0].item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("form", "text", "moment"),
    [
        ("%d/%m/%Y %H:%M:%S.%f", "31/01/2024 10:00:00.5", datetime(2024, 1, 31, 10, 0, 0, 500_000)),
        ("%d/%m/%Y %H:%M:%S,%f", "31/01/2024 10:00:00,500000", datetime(2024, 1, 31, 10, 0, 0, 500_000)),
        ("%d/%m/%y", "31/01/24", datetime(2024, 1, 31)),
        ("%b %d, %Y %I:%M %p", "Jan 31, 2024 3:04 PM", datetime(2024, 1, 31, 15, 4)),
        ("%Y%m%d", "20240131", datetime(2024, 1, 31)),
        ("%Y-%m-%d %H:%M %z", "2024-01-31 10:00 +0200", datetime(2024, 1, 31, 8)),
    ],
)
def test_formats_are_those_of_strptime(
    form: str, text: str, moment: datetime, recwarn: pytest.WarningsRecorder
) -> None:
    _, times = check_times(Column(pl.Series([text]), "t", str), form)
    assert times[0] == (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    assert not recwarn


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("DD/MM/YYYY", "must hold a year, a month, a day, got 'DD/MM/YYYY'"),
        ("%H:%M", "must hold a year, a month, a day"),
        ("%Y-%m-%d %H:%M %Z", "names of zones"),
        ("%d/%m/%Y", r"1: timestamps must have the format .* got '01/02/24' \(1 of 2"),
    ],
)
def test_formats_that_would_be_misread_are_refused(form: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_times(Column(pl.Series(["01/03/2024", "01/02/24"]), "t", str), form)


def test_counters_have_no_unit() -> None:
    counter = list(range(500_000_000, 200_000_000_000, 1_000_000_000))
    assert check_times(Column(pl.Series(counter), "t", str))[0] == "integer"
    run = (0, 99_999_319)
    for later in (100_000_409, 700_000_000):
        check_unit(later, run, "t")
    with pytest.raises(DataError, match="unit of the run's"):
        check_unit(1_700_000_000_000, (1_600_000_000, 1_700_000_000), "t")


def test_times_beyond_the_calendar_are_refused() -> None:
    for unit in ("ms", "us", "ns"):
        column = Column(pl.Series([0, 2**62]).cast(pl.Datetime(unit)), "t", lambda row: f"row {row + 1}")
        if unit == "ns":
            check_times(column)
            continue
        with pytest.raises(DataError, match="row 2: timestamps must be in the years 1000 to 9999"):
            check_times(column)


def test_dates_beyond_the_calendar_are_refused_and_not_moved() -> None:
    for days in (-(10**6), 10**7):
        column = Column(pl.Series([0, days], dtype=pl.Int32).cast(pl.Date), "t", lambda row: f"row {row + 1}")
        with pytest.raises(DataError, match=f"row 2: timestamps must be in the years 1000 to 9999, got {days} days"):
            check_times(column)
    assert check_times(Column(pl.Series([0, 19_000], dtype=pl.Int32).cast(pl.Date), "t", str))[1].to_list() == [
        0,
        19_000 * 86_400_000_000,
    ]


def test_types_that_are_no_feature_are_refused(tmp_path: Path) -> None:
    frame = pl.read_csv(csv_of(tmp_path / "e.csv"), infer_schema=False)
    frame.with_columns(x=pl.duration(seconds=pl.int_range(pl.len()))).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(DataError, match=r"column 'x': a feature must be text, .* got Duration"):
        loaded(tmp_path / "e.parquet", context_features=("x",))
    frame.with_columns(item_id=pl.lit("")).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(DataError, match="column 'item_id': ids must not be null or empty"):
        loaded(tmp_path / "e.parquet")


def test_files_of_a_folder_may_differ_where_it_does_not_matter(tmp_path: Path) -> None:
    folder = tmp_path / "run=3" / "events"
    for day, dtype in (("a", pl.Int32), ("b", pl.Int64)):
        (folder / f"day={day}").mkdir(parents=True)
        frame = pl.DataFrame({"user_id": pl.Series([1, 2], dtype=dtype), **({"more": [1, 2]} if day == "b" else {})})
        frame.write_parquet(folder / f"day={day}" / "x.parquet")
    assert read_table(folder, ("user_id", "day")).frame.rows() == [(1, "a"), (2, "a"), (1, "b"), (2, "b")]


def test_large_files_have_no_other_rules_for_their_header(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    rows = b"".join(b"u,i,%d\n" % row for row in range(200_000))
    path.write_bytes("größe,item_id,timestamp\n".encode("latin-1") + rows)
    with pytest.raises(DataError, match=r"line 1: must be UTF-8 text, got b'\\xf6'"):
        read_table(path)
    path.write_bytes(b"user_id,item_id,timestamp,,\n1,2,3,4,5\n")
    assert read_table(path, ("user_id",)).frame.rows() == [("1",)]
    with pytest.raises(DataError, match="must name every column"):
        read_table(path)
    path.write_bytes(b"user_id,item_id,timestamp")
    assert read_table(path, ("user_id",)).frame.height == 0
    path.write_bytes(b"\xef\xbb\xbf\r\nuser_id,x\r\n1,2\r\n")
    assert raw_records(path) == (b"\xef\xbb\xbfuser_id,x\r\n", [b"1,2\r\n"])
    assert read_table(path, ("user_id",)).frame.rows() == [("1",)]
