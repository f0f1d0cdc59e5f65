"""Runs on prepared rows: they train and evaluate, and settings that do not go with rows are refused."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path

import pytest
from events_factory import make_events
from rows_factory import make_rows, make_timed_rows, write_rows
from runs_factory import before_step

from lmn_model.cli.main import main
from lmn_model.data import DataError, load_dataset, load_rows
from lmn_model.data.schema import Schema
from lmn_model.training import TrainingInterrupted, train
from lmn_model.training.build import open_dataset
from lmn_model.training.evaluation.evaluate import evaluate_run
from lmn_model.training.evaluation.new_events import write_new_events
from lmn_model.training.reporting.notices import without_effect
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.runs.loading import load_run
from lmn_model.training.settings import DataSettings, Settings

SMALL = ["--embedding-dim=4", "--hidden=8", "--batch-size=32", "--threads=1", "--device=cpu"]
SMALL += ["--window=pooling", "--memory=none"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "mine", make_rows(), {"product_id": 100, "tab": 2})


def test_rows_train_and_evaluate_and_do_not_predict(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    out = tmp_path / "run"
    assert main(["train", f"--rows={folder.name}", f"--out={out}", "--search-by=category", *SMALL]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert main(["evaluate", f"--run={out}"]) == 0
    assert json.loads(capsys.readouterr().out) == {"split": "test", "rows": 150, **trained["test"]}
    other = write_rows(tmp_path / "other", make_rows(users=5, items=20, rows=60, seed=3))
    assert main(["evaluate", f"--run={out}", "--split=valid", f"--path={other}"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 60

    pairs = tmp_path / "pairs.csv"
    pairs.write_text("user_id,item_id\n1,1\n")
    assert main(["predict", f"--run={out}", f"--pairs={pairs}", f"--out={tmp_path / 'scored.csv'}"]) == 2
    captured = capsys.readouterr()
    assert captured.err == (
        f"lmn: error: {out}: the run was trained on prepared rows, which have ids only; predict needs a run on events\n"
    )
    assert not (tmp_path / "scored.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=rows"], "leave --dataset out"),
        (["--path=elsewhere"], "leave --path out"),
        (["--resume=somewhere"], "--resume takes the settings of the run"),
        (["--negatives=3"], "negatives makes samples of events"),
        (["--time-col=when"], "time_col names columns of events"),
        (["--search-by=brand"], "search_by: there is no item feature 'brand'; there are product_id, category"),
    ],
)
def test_what_does_not_go_with_rows_ends_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    out = [] if "resume" in arguments[0] else [f"--out={tmp_path / 'run'}"]
    assert main(["train", f"--rows={folder}", *out, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_runs_on_events_and_on_rows_do_not_mix(folder: Path) -> None:
    of_rows = load_rows(folder).vocabularies
    of_events = load_dataset(make_events(rows=200), Schema()).vocabularies
    with pytest.raises(DataError, match="trained on events, which fit no prepared rows"):
        open_dataset(DataSettings(dataset="rows", path=str(folder)), of_events)
    with pytest.raises(DataError, match="trained on prepared rows, which fit no events"):
        open_dataset(DataSettings(dataset="complete-journey"), of_rows)


def small(folder: Path, **changes: object) -> Settings:
    """A factored memory without a window model: ten steps an epoch."""
    values = {"dataset": "rows", "path": str(folder), "window": "none", "sub_keys": 8, "code_dim": 16, "hidden": (8,)}
    values |= {"epochs": 2, "batch_size": 4, "embedding_dim": 4, "eval_every": 5, "checkpoint_steps": 3, "threads": 1}
    return Settings().override({**values, "device": "cpu", **changes})


def test_a_run_on_rows_with_times_writes_by_the_calendar_and_resumes_to_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small(write_rows(tmp_path / "timed", make_timed_rows()))
    with caplog.at_level(logging.INFO, logger="lmn"):
        results = train(settings, tmp_path / "run")["results"]
    assert "writes calendar for events with times" in caplog.text
    assert "have no times" not in caplog.text
    assert results["data"]["train"]["last"] == 53
    assert evaluate_run(tmp_path / "run")["auc"] == results["test"]["auc"]
    before_step(monkeypatch, 8, lambda trainer: signal.raise_signal(signal.SIGINT))
    with pytest.raises(TrainingInterrupted):
        train(settings, tmp_path / "cut")
    monkeypatch.undo()
    assert train(settings, tmp_path / "cut", resume=True)["results"] == results
    other = train(settings.override({"writes": "samples"}), tmp_path / "samples")["results"]
    assert other["test"] != results["test"]

    run, best = load_run(tmp_path / "run"), RunFolder(tmp_path / "run").best
    dataset = open_dataset(run.settings.data)
    times = dataset.train.tables.histories.times
    batches = results["best"]["step"] - 10 * (results["best"]["epoch"] - 1)
    done = dataset.train.timestamps[4 * batches] if batches < 10 else dataset.train.timestamps[-1] + 1
    due = (times >= done) & (times <= dataset.valid.timestamps[-1])
    assert write_new_events(best, run.model, run.settings.training, dataset, run.device) == due.sum() > 0


def test_a_run_on_rows_without_times_says_what_its_memory_cannot_promise(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = train(small(folder, epochs=1), tmp_path / "run")["results"]
    assert caplog.text.count("these prepared rows have no times, so within a split the order of two users'") == 1
    assert results["warnings"] == []
    caplog.clear()
    train(small(folder, epochs=1, memory="none", window="pooling", sub_keys=None), tmp_path / "plain")
    assert "have no times" not in caplog.text


@pytest.mark.parametrize("memory", ["none", "joint"])
def test_writes_of_another_memory_have_no_effect(folder: Path, memory: str) -> None:
    kinds = {"memory": memory, "code_dim": 64, "sub_keys": 8 if memory == "joint" else None, "window": "pooling"}
    settings = small(folder, **kinds, writes="samples")
    found = [each for each in without_effect(settings, load_rows(folder)) if each.startswith("writes = 'samples'")]
    assert len(found) == 1
