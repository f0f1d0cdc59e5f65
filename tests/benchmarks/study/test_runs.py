"""Runs of a study: repeated, reported, stopped and continued; results of other settings are refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from matplotlib.figure import Figure
from project_root import ROOT
from rows_factory import write_rows
from study_factory import PAGE, write_study

from benchmarks.study.__main__ import main
from benchmarks.study.jobs import Places, make_job
from benchmarks.study.report import MISSING
from benchmarks.study.runner import open_jobs
from benchmarks.study.statistics import estimate
from benchmarks.study.study_file import load_study
from benchmarks.study.worker import run_job
from lmn_model.training.runs.folder import RunFolder, RunFolderError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = "--jobs=0"
"""Runs jobs in this process, which saves the start of a worker; what is tested without it needs processes."""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a small study in the working directory."""
    monkeypatch.chdir(tmp_path)
    return write_study(tmp_path)


def _run(path: Path, *arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        if HERE in arguments:  # drawing learning curves would take nine tenths of the time
            patch.setattr(Figure, "savefig", lambda figure, file, **_: Path(file).touch())
        return main(["run", str(path), "--results", "results", "--out", "scratch", "--page", "page.md", *arguments])


def _results() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in Path("results/tiny").glob("*.json")}


@pytest.mark.slow
def test_runs_repeat_to_the_last_digit_in_another_process(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(study, "--only", "DIN,counts", "--seeds", "0", HERE) == 0
    first = Path("results/tiny/din-seed0.json").stat().st_mtime_ns
    capsys.readouterr()
    assert _run(study, "--only", "DIN,counts", "--seeds", "0", "--again", "--jobs", "2") == 0
    assert capsys.readouterr().err.count("equal to the last digit") == 2
    assert Path("results/tiny/din-seed0.json").stat().st_mtime_ns == first
    spoilt = _results()["din-seed0"]
    spoilt["test"]["auc"] += 1e-9
    Path("results/tiny/din-seed0.json").write_text(json.dumps(spoilt))
    assert _run(study, "--only", "DIN", "--seeds", "0", "--again", HERE) == 1
    assert "1 of 1 runs do not repeat" in capsys.readouterr().err


def test_a_study_is_run_once_and_reported(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(study, "--only", "DIN", "--seeds", "0", HERE) == 0
    first = Path("results/tiny/din-seed0.json").stat().st_mtime_ns
    assert _run(study, HERE) == 0
    assert len(_results()) == 2 * 4 + 2
    assert Path("results/tiny/din-seed0.json").stat().st_mtime_ns == first
    capsys.readouterr()
    assert _run(study, HERE) == 0
    assert "10 runs, 10 of them have a result" in capsys.readouterr().err

    assert _run(study, "--report") == 0
    page = Path("page.md").read_text()
    assert page.count(MISSING) == 2  # nothing is tuned, and rows without times have no age of items
    assert "By hand." in page
    assert "untouched" in page
    lines = page.splitlines()
    results = _results()
    mean = estimate([results[f"din-seed{seed}"]["test"]["auc"] for seed in (0, 1)]).mean
    assert any(line.startswith(f"| DIN | 2 | {mean:.4f} ± ") for line in lines)
    assert any(line.startswith("| counts | - | ") for line in lines)
    sized = [line.split(" | ") for line in lines if re.match(r"\| (LMN|co-occurrence 4) \| (16|64) ", line)]
    assert [row[:3] for row in sized] == [["| LMN", "16", "2"], ["| LMN", "64", "2"], ["| co-occurrence 4", "16", "-"]]
    size = [[results[f"size-sub_keys-{n}-seed{k}"]["test"]["auc"] for k in (0, 1)] for n in (4, 8)]
    less = estimate([small - large for small, large in zip(*size, strict=True)]).mean
    assert sized[0][4].startswith(f"{less:+.4f}")
    assert sized[1][4] == ""
    for reference in ("DIN", "size sub_keys=8"):
        assert sum(f" | ΔAUC to {reference} | " in line for line in lines) == 1
    for name in ("main", "size"):
        assert Path(f"results/tiny/{name}.png").read_bytes().startswith(b"\x89PNG")
    history = page[page.index("| model | 0 to 9 |") :].splitlines()
    sizes = [re.fullmatch(r"([\d,]+) \(\d+\)", size.strip()) for size in history[2].split("|")[2:-1]]
    assert sum(int(size[1]) for size in sizes if size) == 150  # every sample of the test split is in one range
    writing = page[page.index("AUC, keeps writing") :].splitlines()
    kept = [results[f"lmn-seed{seed}"]["test_while_writing"]["auc"] for seed in (0, 1)]
    assert any(line.startswith("| LMN | ") and f" | {estimate(kept).mean:.4f} ± " in line for line in writing)
    assert not any(line.startswith("| DIN | ") for line in writing)
    assert _run(study, "--report") == 0
    assert Path("page.md").read_text() == page


def test_results_of_other_settings_are_not_mixed(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(study, "--only", "DIN", "--seeds", "0", "--quick", HERE) == 0
    assert json.loads(Path("results/tiny-quick/din-seed0.json").read_text())["train_rows"] == 40
    assert _run(study, "--only", "DIN", "--seeds", "0", HERE) == 0
    study.write_text(study.read_text().replace("batch_size = 32", "batch_size = 16"))
    capsys.readouterr()
    assert _run(study, "--only", "DIN", "--seeds", "0") == 2
    error = capsys.readouterr().err
    assert "din-seed0.json" in error
    assert "batch_size" in error
    assert _run(study, "--report") == 2
    assert "din-seed0.json: is the result of other settings: training.batch_size" in capsys.readouterr().err
    assert Path("page.md").read_text() == PAGE
    assert _run(study, "--only", "DIN", "--seeds", "0", "--force", HERE) == 0
    assert _results()["din-seed0"]["settings"]["training"]["batch_size"] == 16


def test_a_study_may_leave_sizes_unset(tmp_path: Path) -> None:
    table: dict[str, Any] = {
        "name": "tiny", "seeds": [0], "axes": {"size": "sub_keys"},
        "base": {
            "data": {"dataset": "rows", "path": str(write_rows(tmp_path / "rows")), "window_size": 4},
            "model": {"embedding_dim": 4, "hidden": [8], "memory": {"code_dim": 8}},
            "training": {"device": "cpu"},
        },
        "variant": [{"name": "LMN", "question": "size", "settings": {"window": "none"}}],
    }  # fmt: skip
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(table))
    study = load_study(tmp_path / "tiny.toml")
    job = make_job(study, study.variants[0], 0, Places(tmp_path / "out", tmp_path / "results"), keep=True)
    result = run_job(job)
    assert job.settings.unset() == ("batch_size", "epochs", "patience", "sub_keys", "writes")
    assert open_jobs([job]) == []  # the result is that of the job
    assert RunFolder(job.run_folder).load_settings().unset() == ()
    job.result.unlink()
    assert open_jobs([job]) == [job]  # its run is not stale
    assert run_job(job)["test"] == result["test"]


def test_a_run_that_fails_does_not_stop_the_others(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The items have no such feature, which the worker of the first run finds out.
    table = tomllib.loads(study.read_text())
    table["variant"][0]["settings"]["search_by"] = "colour"
    study.write_text(tomli_w.dumps(table))
    assert _run(study, "--only", "DIN,LMN", "--seeds", "0", "--jobs", "1") == 1
    assert set(_results()) == {"lmn-seed0"}
    error = capsys.readouterr().err
    assert "lmn: 1 of 2 runs failed:\n  DIN seed 0: " in error
    assert "colour" in error.split("runs failed:")[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_is_stopped_continues(study: Path, number: signal.Signals) -> None:
    longer = {"batch_size = 32": "batch_size = 1", "epochs = 1": "epochs = 4\ncheckpoint_steps = 5"}
    text = study.read_text()
    for short, changed in longer.items():
        assert short in text
        text = text.replace(short, changed)
    study.write_text(text)
    arguments = ["run", str(study), "--results", "results", "--out", "scratch"]
    arguments += ["--only", "DIN", "--seeds", "0", "--keep"]
    command = [sys.executable, "-m", "benchmarks.study", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
        _wait_until(lambda: list(Path("scratch").rglob("last.safetensors")))
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    assert not _results()
    run = RunFolder("scratch/tiny/din-seed0")
    if number == signal.SIGINT:
        assert running.returncode == 130
        assert "stopped after 0 of 1 runs; the same command continues them" in said
        assert not _is_locked(run)
    else:  # the worker sees the closed pipe, finishes its step and saves
        _wait_until(lambda: not _is_locked(run))
    if number == signal.SIGINT:  # the data may have moved meanwhile
        Path("rows").rename("moved")
        arguments += ["--data", "moved"]
    assert main([*arguments, HERE]) == 0
    assert _results()["din-seed0"]["steps"] == 4 * 150
    resumed = re.findall(r"resumed at epoch (\d+), step (\d+)", run.log.read_text())
    assert len(resumed) == 1
    assert tuple(map(int, resumed[0])) > (1, 0)


def _is_locked(run: RunFolder) -> bool:
    try:
        with run.locked():
            return False
    except RunFolderError:
        return True


def _wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
