"""Runs on prepared rows: they train and evaluate, and settings that do not go with rows are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from events_factory import make_events
from rows_factory import make_rows, write_rows

from lmn_model.cli.main import main
from lmn_model.data import DataError, load_dataset, load_rows
from lmn_model.data.schema import Schema
from lmn_model.training.build import open_dataset
from lmn_model.training.settings import DataSettings

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
