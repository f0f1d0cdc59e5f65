"""Any table: a row means the same whatever stands beside it, what is not used is copied, every failure is one line."""

from __future__ import annotations

import contextlib
import csv
import io
import string
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from batch_fields import FIELDS, same
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st

from lmn_model.cli.main import main
from lmn_model.data import DataError, DataOptions, load_dataset, load_source, prepare_pairs, read_table
from lmn_model.data.tables.text_records import append_column, raw_records

ROWS = 40
SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck))
COMMAND = settings(SETTINGS, phases=[Phase.explicit, Phase.reuse, Phase.generate])
"""Without shrinking, which would take a run of the command for each try."""

number_texts = st.one_of(
    st.integers(0, 99).map(str),
    st.integers(0, 99999).map("{:05d}".format),
    st.decimals(0, 100, places=2).map(str),
    st.floats(0, 1e6, allow_nan=False).map(repr),
)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
odd = st.sampled_from(
    ["", "NA", "-", "$3.20", "3,20", '12" pipe', "a|b", "07001", "1.10", "2020-11-12 12:14:27", "len"]
)
value_pools = st.one_of(
    st.lists(number_texts, min_size=1, max_size=5),
    st.lists(st.one_of(number_texts, odd, texts), min_size=1, max_size=6),
    st.lists(st.decimals(0, 9, places=1).map(str), min_size=2, max_size=9),
)
names = st.one_of(
    st.sampled_from(
        ["len", "*", "^a.*$", "count", "index", "rows", "literal", "probability_", "a,b", 'say "x"', " x "]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8),
)


@st.composite
def tables(draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[list[str], list[list[str]]]:
    """A header of seven columns (user, item, time, label, two features, one that nothing uses) and rows of text."""
    header = draw(st.lists(names, min_size=7, max_size=7, unique=True))
    pools = [draw(st.lists(st.text(string.ascii_letters + "0", min_size=1, max_size=4), min_size=2, max_size=4))]
    pools += [draw(st.lists(number_texts, min_size=3, max_size=6, unique=True)), *(draw(value_pools) for _ in range(3))]
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))

    def pick(pool: list[str]) -> str:
        return pool[rng.integers(len(pool))]

    user, item, first, second, unused = pools
    rows = [
        [pick(user), pick(item), str(1000 + row), str(int(rng.integers(2))), pick(first), pick(second), pick(unused)]
        for row in range(ROWS)
    ]
    for row, label in ((0, "0"), (1, "1"), (-10, "0"), (-9, "1"), (-2, "0"), (-1, "1")):
        rows[row][3] = label
    return header, rows


def write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


@settings(SETTINGS, max_examples=200)
@given(tables(), st.data())
def test_a_row_is_read_the_same_whatever_stands_beside_it(
    table: tuple[list[str], list[list[str]]], data: st.DataObject
) -> None:
    header, rows = table
    user, item, time, label, first, second, _ = header
    schema = {"user": user, "item": item, "timestamp": time, "label": label}
    features = {"item_features": (first,), "context_features": (second,)}
    with TemporaryDirectory() as folder:
        path, part = Path(folder) / "all.csv", Path(folder) / "part.csv"
        write(path, header, rows)
        try:
            events, known = load_source("events", path, **schema, **features)
            vocabularies = load_dataset(events, known, DataOptions(valid_fraction=0.2, test_fraction=0.2)).vocabularies
        except DataError as error:
            message = str(error)
            note(message)
        else:
            message = ""
        assert "\n" not in message
        if message:
            return
        chosen = sorted(data.draw(st.sets(st.integers(0, ROWS - 1), min_size=1, max_size=4)))
        write(part, header, [rows[row] for row in chosen])
        columns, optional = (user, item, second), (time, first)
        whole, alone = (
            prepare_pairs(read_table(each, columns, optional), events, known, vocabularies, 5)  # type: ignore[arg-type]
            for each in (path, part)
        )
        expected, found = whole.batch(np.array(chosen)), alone.batch(np.arange(len(chosen)))
        for name in FIELDS:
            if name not in ("label", "group"):
                assert torch.equal(getattr(found, name), getattr(expected, name)), name


@SETTINGS
@given(tables(), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_what_is_not_used_is_copied_byte_for_byte(
    table: tuple[list[str], list[list[str]]], end: str, quoted: bool
) -> None:
    header, rows = table
    assume(not any("\r" in value or "\n" in value for row in rows for value in row))
    buffer = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(buffer, lineterminator=end, quoting=quoting).writerows([header, *rows])
    content = buffer.getvalue().encode()
    with TemporaryDirectory() as folder:
        path, out = Path(folder) / "in.csv", Path(folder) / "out.csv"
        path.write_bytes(content)
        with out.open("wb") as file:
            append_column(file, path, "probability", ["0.5"] * ROWS)
        lines = content.split(end.encode())[:-1]
        values = [b"probability", *[b"0.5"] * ROWS]
        expected = b"".join(line + b"," + value + end.encode() for line, value in zip(lines, values, strict=True))
        assert out.read_bytes() == expected
        assert read_table(path).frame.height == len(raw_records(path)[1]) == ROWS


def check_command(table: tuple[list[str], list[list[str]]], chosen: list[int], folder: Path) -> None:
    """Train on a table, predict some of its rows alone and beside the others, and compare; no plots are drawn."""
    header, rows = table
    user, item, time, label, _, second, _ = header
    data, part = folder / "all.csv", folder / "part.csv"
    write(data, header, rows)
    write(part, header, [rows[row] for row in chosen])
    arguments = ["train", "--dataset=events", f"--path={data}", f"--out={folder / 'run'}", f"--user-col={user}"]
    arguments += [f"--item-col={item}", f"--time-col={time}", f"--label-col={label}", "--memory=none", "--epochs=1"]
    arguments += ["--embedding-dim=4", "--hidden=8", "--threads=1", "--valid-fraction=0.2", "--test-fraction=0.2"]
    if "," not in second and second.strip() == second:
        arguments.append(f"--context-features={second}")
    printed = io.StringIO()
    with (
        contextlib.redirect_stderr(printed),
        contextlib.redirect_stdout(io.StringIO()),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
        code = main(arguments)
    if code:
        assert code == 2
        assert len(printed.getvalue().splitlines()) == 1, printed.getvalue()
        return
    scored = []
    for pairs in (data, part):
        out = folder / f"scored-{pairs.name}"
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
            assert main(["predict", f"--run={folder / 'run'}", f"--pairs={pairs}", f"--out={out}"]) == 0
        before, after = (list(csv.reader(each.open(encoding="utf-8", newline=""))) for each in (pairs, out))
        assert [record[:-1] for record in after] == before
        scored.append(np.array([float(record[-1]) for record in after[1:]]))
    np.testing.assert_allclose(scored[1], scored[0][chosen], rtol=1e-6)


@settings(COMMAND, max_examples=8)
@given(tables(), st.sets(st.integers(0, ROWS - 1), min_size=1, max_size=4))
def test_the_command_scores_a_row_the_same_whatever_stands_beside_it(
    table: tuple[list[str], list[list[str]]], chosen: set[int]
) -> None:
    with TemporaryDirectory() as folder:
        check_command(table, sorted(chosen), Path(folder))


@pytest.mark.overnight
@settings(COMMAND, max_examples=200)
@given(tables(), st.sets(st.integers(0, ROWS - 1), min_size=1, max_size=4))
def test_the_command_on_many_tables(table: tuple[list[str], list[list[str]]], chosen: set[int]) -> None:
    with TemporaryDirectory() as folder:
        check_command(table, sorted(chosen), Path(folder))


def test_columns_may_have_names_that_are_patterns_elsewhere(tmp_path: Path) -> None:
    names = ["len", "*", "^.*$", "count", "key", "row"]
    frame = pl.DataFrame({name: [f"{name}{row % 3}" for row in range(60)] for name in names})
    frame = frame.with_columns(pl.Series("events", range(60)))
    frame.write_csv(tmp_path / "events.csv")
    frame.write_parquet(tmp_path / "events.parquet")
    sets = []
    for suffix in ("csv", "parquet"):
        columns = {"user": "len", "item": "*", "timestamp": "events"}
        features = {"user_features": ("^.*$",), "item_features": ("count",), "context_features": ("key", "row")}
        events, schema = load_source("events", tmp_path / f"events.{suffix}", **columns, **features)
        sets.append(load_dataset(events, schema))
    assert sets[0].features == sets[1].features
    for left, right in zip(sets[0].splits.values(), sets[1].splits.values(), strict=True):
        assert same(left.batch(np.arange(len(left))), right.batch(np.arange(len(right))))
