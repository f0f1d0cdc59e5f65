"""Any window model with any memory: trained, evaluated and used for predictions by the commands."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from runs_factory import tiny_flags, write_events

from lmn_model.cli.main import main
from lmn_model.training.runs.folder import RunFolder

COMBINATIONS = [
    ("sim_hard", "factored"), ("pooling", "joint"), ("mimn", "factored"), ("none", "factored"), ("sim_soft", "joint"),
    ("none", "none"),
]  # fmt: skip


@pytest.mark.parametrize(("window", "memory"), COMBINATIONS)
def test_a_combination_trains_evaluates_and_predicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], window: str, memory: str
) -> None:
    events = write_events(tmp_path / "events.parquet", 300)
    changes: dict[str, object] = {"window": window, "memory": memory, "order": "time", "epochs": 1}
    if memory != "joint":
        changes |= {"key_dim": 16, "top_k": 1}
    if window == "sim_hard":
        changes["search_by"] = "category"
    run = f"--run={tmp_path / 'run'}"
    assert main(["train", f"--out={tmp_path / 'run'}", *tiny_flags(events, **changes)]) == 0
    trained = json.loads(capsys.readouterr().out)["test"]
    parameters = RunFolder(tmp_path / "run").load_metrics()["results"]["parameters"]
    assert (parameters["memory"] > 0) == (memory != "none")
    assert (parameters["interest"] > 0) == (window not in ("none", "pooling"))
    assert main(["evaluate", run]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in trained} == trained
    pl.read_parquet(events).drop("label", strict=False).tail(9).write_parquet(tmp_path / "pairs.parquet")
    assert main(["predict", run, f"--pairs={tmp_path / 'pairs.parquet'}", f"--out={tmp_path / 'out.csv'}"]) == 0
    chances = pl.read_csv(tmp_path / "out.csv")["probability"]
    assert len(chances) == 9
    assert chances.is_between(0, 1).all()


def test_the_default_folder_names_window_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = write_events(tmp_path / "events.parquet", 300)
    monkeypatch.chdir(tmp_path)
    assert main(["train", *tiny_flags(events, epochs=1)]) == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["events-din-joint"]
