"""The demo: four models trained on one table, compared, and not trained twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs_factory import tiny_settings, write_events

from benchmarks.study import commands
from benchmarks.study.__main__ import main
from benchmarks.study.demo import DEMO, run_demo


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return write_events(tmp_path / "events.parquet")


def test_demo_compares_four_models_and_the_second_run_only_prints(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"
    monkeypatch.setattr(commands, "DEMO", tiny_settings(events, epochs=1, order="time", key_dim=16))
    assert main(["demo", f"--out={out}"]) == 0
    first = capsys.readouterr()
    lines = first.out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", "pooling", "DIN", "LMN", "LMN,"]
    summary = json.loads((out / "summary.json").read_text())
    assert [row["model"] for row in summary["models"]] == ["pooling", "DIN", "LMN", "LMN, joint query"]
    assert summary["models"][2]["parameters"] > summary["models"][1]["parameters"]
    assert (out / "learning_curves.png").read_bytes().startswith(b"\x89PNG")

    events_moved = events.rename(events.with_suffix(".moved"))
    try:
        assert main(["demo", f"--out={out}"]) == 0
    finally:
        events_moved.rename(events)
    second = capsys.readouterr()
    assert second.out == first.out
    assert second.err.count("is trained already") == 4


def test_the_demo_sets_every_size() -> None:
    assert DEMO.unset() == ("writes", "profile_levels", "profile_signed"), "what follows the kind of the data alone"


def test_a_demo_with_sizes_unset_continues(events: Path, tmp_path: Path) -> None:
    sizes = {"batch_size": None, "sub_keys": None, "epochs": 1, "eval_every": None}
    settings = tiny_settings(events, memory="factored", top_k=None, key_dim=16, order="time", **sizes)
    rows = run_demo(tmp_path / "demo", settings)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("metrics.json")}
    assert run_demo(tmp_path / "demo", settings) == rows
    assert {path: path.stat().st_mtime_ns for path in times} == times
