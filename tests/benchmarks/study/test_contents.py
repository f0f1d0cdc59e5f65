"""The report of what a memory stores, on events where the truth is known: twins, and categories of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rows_factory import write_rows

from benchmarks.study.__main__ import main
from benchmarks.study.contents import measures, queries, reading
from benchmarks.study.contents.command import write_contents
from benchmarks.study.contents.figures import PICTURES
from benchmarks.study.contents.measures import (
    another,
    choose_categories,
    describe_categories,
    describe_recall,
    describe_usage,
    threshold_of,
)
from benchmarks.study.contents.profiles import TOP, describe_profiles, percentile
from benchmarks.study.contents.queries import read_familiarity
from benchmarks.study.contents.reading import Contents, read_contents
from benchmarks.study.contents.words import Words
from lmn_model.cli.main import main as lmn
from lmn_model.modules.factored_memory import FactoredMemoryNetwork
from lmn_model.training.build import open_dataset
from lmn_model.training.evaluation.new_events import write_new_events
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.runs.loading import load_run

PAIRS, OWN, EVENTS, TEST_FROM = 6, 6, 150, 130
"""Users 2 p and 2 p + 1 are twins: at each moment both buy from the same of OWN categories, which only they buy."""
SMALL = ("--embedding-dim=4", "--hidden=8", "--batch-size=32", "--threads=1", "--device=cpu", "--window=none")


def _twins() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    chance = np.arange(OWN, 0, -1) / (OWN * (OWN + 1) / 2)
    rows = []
    for pair in range(PAIRS):
        for moment, category in enumerate(rng.choice(OWN, EVENTS, p=chance)):
            for user in (2 * pair, 2 * pair + 1):
                own = OWN * pair + int(category)
                rows.append((f"h{user}", 3 * own + moment % 3, moment, f"KIND {own}"))
    names = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "category"], orient="row")
    return names.with_columns(pl.col("category").replace("KIND 7", "SALT, PEPPER | CO"))


def _train(folder: Path, events: Path, *more: str) -> Path:
    flags = ["--dataset=events", f"--path={events}", "--item-features=category", "--valid-from=100"]
    assert lmn(["train", f"--out={folder}", *flags, f"--test-from={TEST_FROM}", *SMALL, *more]) == 0
    return folder


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("events") / "twins.parquet"
    _twins().write_parquet(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, events: Path) -> Path:
    return _train(tmp_path_factory.mktemp("runs") / "factored", events, "--sub-keys=64")


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory, events: Path) -> Path:
    return _train(tmp_path_factory.mktemp("runs") / "joint", events, "--memory=joint", "--top-k=4", "--sub-keys=8")


@pytest.fixture(scope="module")
def contents(run: Path) -> Contents:
    return read_contents(run)


def _error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["contents", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    return lines[0].removeprefix("lmn: error: ")


def test_counts_are_the_events_before_the_test_split(contents: Contents) -> None:
    assert contents.feature == "category"
    before = _twins().filter(pl.col("timestamp") < TEST_FROM)
    for row, user in enumerate(contents.user_names):
        for column, category in enumerate(contents.category_names):
            found = before.filter((pl.col("user_id") == user) & (pl.col("category") == category))
            assert contents.counts[row, column] == found.height
    assert len(contents.users) == contents.users_in_all == 2 * PAIRS
    assert (
        contents.shown == before.height
    )  # all of them: the last batch carries the last moment of the validation split


def test_the_memory_is_read_as_it_is_at_the_start_of_the_test_split(run: Path, contents: Contents) -> None:
    settings, model, vocabularies, device, _ = load_run(run)

    def norms() -> torch.Tensor:
        return model.memory_block().values.detach().square().mean(-1).sqrt().view(64, 64)

    trained = norms()
    write_new_events(RunFolder(run).best, model, settings.training, open_dataset(settings.data, vocabularies), device)
    torch.testing.assert_close(torch.from_numpy(contents.norms), norms())
    assert not torch.allclose(trained, norms())


@pytest.mark.parametrize(("top_k", "dtype"), [(1, None), (3, None), (1, torch.bfloat16)])
def test_familiarity_is_that_of_the_memory_features(top_k: int, dtype: torch.dtype | None) -> None:
    sizes = (7, 4, 5)
    network = FactoredMemoryNetwork(sizes, 9, code_dim=16, sub_keys=6, top_k=top_k, value_dtype=dtype)
    with torch.no_grad():
        network.block.values.normal_()
    users = torch.tensor([2, 8, 3, 5])
    for place, size in enumerate(sizes):
        categories = torch.arange(1, size)
        found = read_familiarity(network, place, categories, users)
        assert found.shape == (4, size - 1)
        for row, user in enumerate(users):
            ids = torch.zeros(size - 1, 3, dtype=torch.int64)
            ids[:, place] = categories
            features = network(ids, user.expand(size - 1)).view(size - 1, 2, 4, 4)
            torch.testing.assert_close(torch.from_numpy(found[row]), features[:, 0, place, 0] / 2)


def test_many_pairs_are_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    network = FactoredMemoryNetwork([7], 9, sub_keys=6)
    with torch.no_grad():
        network.block.values.normal_()
    categories, users = torch.arange(7), torch.arange(9)
    at_once = read_familiarity(network, 0, categories, users)
    monkeypatch.setattr(queries, "ROWS", 15)
    np.testing.assert_array_equal(read_familiarity(network, 0, categories, users), at_once)


def test_familiarity_separates_what_was_bought_from_what_was_not(contents: Contents) -> None:
    threshold = threshold_of(contents)
    recall = describe_recall(contents, threshold)
    assert recall["pairs"] == 2 * PAIRS * PAIRS * OWN
    assert recall["own"]["auc"] > 0.99
    assert recall["own"]["auc_within_user"] > 0.99
    assert recall["own"]["spearman"] > recall["other"]["spearman"] + 0.3
    assert recall["other"]["auc"] < 0.8
    assert recall["by_count"][0]["from"] == 0
    assert recall["by_count"][0]["above_threshold"] == pytest.approx(measures.FALSE_ALARMS, abs=0.01)
    assert sum(each["pairs"] for each in recall["by_count"]) == recall["pairs"]
    medians = [each["quantiles"][2] for each in recall["by_count"]]
    assert medians == sorted(medians)


def test_the_nearest_household_is_the_twin(contents: Contents) -> None:
    profiles = describe_profiles(contents, examples=2 * PAIRS)
    assert profiles["overlap"] > 0.8
    assert profiles["overlap_other"] < 0.3
    assert sum(profiles["overlaps"]) == sum(profiles["overlaps_other"]) == profiles["users"] == 2 * PAIRS
    assert profiles["nearest"]["cosine"] == pytest.approx(1.0)
    assert profiles["nearest"]["percentile"] == 1.0
    assert len(profiles["examples"]) == 2 * PAIRS
    before = _twins().filter(pl.col("timestamp") < TEST_FROM)
    for each in profiles["examples"]:
        twin = f"h{int(each['name'][1:]) ^ 1}"
        assert each["nearest"][0]["name"] == twin
        assert len(each["nearest"]) == 3
        true = before.filter(pl.col("user_id") == each["name"])["category"].value_counts(sort=True)
        assert each["true_counts"] == true["count"].to_list()[:TOP]
        assert each["agree"] == len({*each["true_top"]} & {*each["recalled_top"]})


def test_usage_and_categories_count_slots(contents: Contents) -> None:
    usage = describe_usage(contents)
    assert usage["cells"] == 64 * 64  # a former name
    assert usage["in_use"] == np.count_nonzero(contents.norms) / 64**2
    written = contents.norms[contents.category_keys, contents.user_keys[:, None]]  # [U, C]
    assert (written[contents.counts > 1] > 0).all()
    # Axis 1 is the users', and that of any user.
    assert usage["sub_keys_in_use"][1] - len(np.unique(contents.user_keys)) in (0, 1)
    threshold = threshold_of(contents) / 10  # so that some are recalled wrongly
    chosen = choose_categories(contents, count=4)
    totals = contents.counts.sum(axis=0)
    assert totals[chosen].tolist() == sorted(totals, reverse=True)[:4]
    wrongly = 0
    for each, column in zip(describe_categories(contents, chosen, threshold), chosen, strict=True):
        above = {row for row in range(2 * PAIRS) if contents.familiarity[row, column] > threshold}
        truly = {row for row in range(2 * PAIRS) if contents.counts[row, column] > 0}
        assert (each["users"], each["recalled"], each["rightly"]) == (2, len(above), len(above & truly))
        wrongly += len(above - truly)
        assert each["cells_recalled"] == len({int(contents.user_keys[row]) for row in above})
        assert each["members_of_sub_key"]["category"] >= 1 + len(each["shares_with"])
        for name in each["shares_with"]:
            assert contents.category_keys[contents.category_names.index(name)] == each["sub_key"]
    assert wrongly > 0


def test_percentiles_against_loops() -> None:
    cosines = np.array([[-np.inf, 0.5, 0.2, 0.5, 0.9], [0.1, -np.inf, 0.3, 0.2, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(percentile(cosines, np.array([[1], [2]])), [(1 + 1 / 2) / 3, 1.0])
    other = another(7, 0)
    assert sorted(other) == list(range(7))
    assert (other != np.arange(7)).all()


def test_spearman_is_the_correlation_of_mean_ranks(contents: Contents) -> None:
    def ranks(values: np.ndarray) -> np.ndarray:
        flat = values.ravel()
        return np.array([(flat < each).sum() + ((flat == each).sum() + 1) / 2 for each in flat])

    expected = np.corrcoef(ranks(contents.counts), ranks(contents.familiarity))[0, 1]
    assert describe_recall(contents, 0.1)["own"]["spearman"] == pytest.approx(expected)
    flat = replace(contents, familiarity=np.ones_like(contents.familiarity))
    assert describe_recall(flat, 0.1)["own"]["spearman"] is None


def test_of_too_many_pairs_some_users_are_drawn(run: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_PAIRS", 5 * len(contents.category_names))
    drawn = read_contents(run)
    assert (len(drawn.users), drawn.users_in_all) == (5, 2 * PAIRS)
    kept = np.isin(contents.users, drawn.users)
    np.testing.assert_array_equal(drawn.counts, contents.counts[kept])
    np.testing.assert_allclose(drawn.familiarity, contents.familiarity[kept])
    assert drawn.shown == contents.shown * 5 // (2 * PAIRS)


def test_the_command_writes_a_page_with_names(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "contents"
    given = ["--category", "salt, pepper | co", "--category", "kind 3,KIND 20"]
    assert main(["contents", str(run), "--out", str(out), *given]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["auc"] > 0.99
    found = json.loads((out / "contents.json").read_text())
    assert [each["name"] for each in found["chosen"]] == ["SALT, PEPPER | CO", "KIND 3", "KIND 20"]
    assert found["settings"]["training"]["seed"] == 0
    text = (out / "contents.md").read_text()
    assert "salt, pepper \\| co" in text
    assert "kind 20" in text
    for picture in PICTURES:
        assert f"]({picture})" in text
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    columns = [line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")]
    assert set(columns) == {10, 5, 9}
    assert len(list(out.iterdir())) == 2 + len(PICTURES)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert f"{out} already holds contents.md, contents.json, " in _error(capsys, run, "--out", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert main(["contents", str(run), "--out", str(out), *given, "--force"]) == 0


def test_another_feature_and_threshold(run: Path, tmp_path: Path) -> None:
    found = write_contents(run, tmp_path, feature="item_id", threshold=1e9)
    bought = _twins().filter(pl.col("timestamp") < 100)["item_id"].n_unique()  # one came later and has no id
    assert (found["feature"], found["categories"]) == ("item_id", bought)
    assert all(each["recalled"] == 0 for each in found["chosen"])


def test_prepared_rows_have_ids_for_names(tmp_path: Path) -> None:
    rows, run = write_rows(tmp_path / "rows"), tmp_path / "run"
    assert lmn(["train", f"--rows={rows}", f"--out={run}", *SMALL, "--sub-keys=16"]) == 0
    contents = read_contents(run)
    assert contents.feature == "category"
    assert contents.category_names == ["1", "2", "3", "4", "5", "6"]
    assert contents.counts.sum() == contents.shown
    assert Words(contents).values(["1", "2"]) == "category 1, category 2"
    moved = rows.rename(tmp_path / "moved")
    found = write_contents(run, tmp_path / "out", path=str(moved))
    assert found["events"] == contents.shown
    assert "category 3" in (tmp_path / "out" / "contents.md").read_text()


class TestErrors:
    """One clear line each."""

    @pytest.fixture
    def unfinished(self, run: Path) -> Iterator[Path]:
        path = RunFolder(run).metrics
        text = path.read_text()
        path.write_text(json.dumps({**json.loads(text), "status": "interrupted"}))
        yield run
        path.write_text(text)

    def test_no_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "there is no run here" in _error(capsys, tmp_path, "--out", tmp_path / "out")

    def test_no_memory(self, tmp_path: Path, events: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = _train(tmp_path / "run", events, "--window=pooling", "--memory=none")
        assert _error(capsys, run, "--out", tmp_path / "out") == (f"{run}: a run with memory = 'none' has no memory")

    def test_joint_query(self, joint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "the memory has a joint query" in _error(capsys, joint, "--out", tmp_path / "out")

    def test_unfinished(self, unfinished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert f"not finished; lmn train --resume {unfinished}" in _error(capsys, unfinished, "--out", tmp_path)

    def test_unknown_feature(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        message = _error(capsys, run, "--out", tmp_path, "--feature", "categori")
        assert "no item feature 'categori'; did you mean 'category'? (there are item_id, category)" in message

    def test_unknown_category(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        message = _error(capsys, run, "--out", tmp_path, "--category", "kind 3,kindd 30")
        assert message == "--category: category has no value 'kindd 30'; did you mean 'kind 30'?"

    def test_out_that_cannot_be_written(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        taken = tmp_path / "file"
        taken.write_text("mine")
        assert f"--out {taken}: the folder cannot be written" in _error(capsys, run, "--out", taken)
        assert f"--out {taken / 'in'}: the folder cannot be written" in _error(capsys, run, "--out", taken / "in")
        assert taken.read_text() == "mine"

    def test_other_data(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        other = tmp_path / "other.parquet"
        _twins().filter(pl.col("timestamp") != 50).write_parquet(other)
        message = _error(capsys, run, "--out", tmp_path / "out", "--data", other)
        assert message == f"{other}: these are not the data that {run} was trained on"

    def test_threshold_that_is_no_number(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "must be a finite number" in _error(capsys, run, "--out", tmp_path, "--threshold", "nan")
