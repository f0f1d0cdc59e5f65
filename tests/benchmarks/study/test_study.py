"""lmn study: runs of a grid, resumed, tuned, and made into tables; mistakes are one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import scipy.stats
import tomli_w
from matplotlib.figure import Figure
from project_root import ROOT
from rows_factory import write_rows

from benchmarks.study.__main__ import main
from benchmarks.study.figures import Dot, draw_curves, draw_dots
from benchmarks.study.report import MISSING
from benchmarks.study.statistics import estimate, paired_difference, student_t_quantile
from benchmarks.study.study_file import load_study
from lmn_model.training.runs.folder import RunFolder, RunFolderError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGE = """# Page

<!-- study: tiny main -->
<!-- /study -->

By hand.

<!-- study: tiny size -->
<!-- /study -->

<!-- study: tiny tuning -->
<!-- /study -->

<!-- study: tiny history -->
<!-- /study -->

<!-- study: other main -->
left alone
<!-- /study -->
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a study with two models, two heuristics and a sweep, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows")
    table = {
        "name": "tiny",
        "reference": "DIN",
        "references": {"size": "size sub_keys=8"},
        "axes": {"size": "slots"},
        "seeds": [0, 1],
        "base": {
            "data": {"dataset": "rows", "path": "rows", "window_size": 4},
            "model": {"embedding_dim": 4, "hidden": [8], "memory": {"sub_keys": 8, "code_dim": 8}},
            "training": {"epochs": 1, "batch_size": 32, "device": "cpu"},
        },
        "quick": {"seeds": [0], "questions": ["size"], "max_train_rows": 40},
        "tune": {"learning_rate": [0.001, 0.01], "embedding_std": [0.05, 0.2], "window_size": [4, 3]},
        "variant": [
            {"name": "DIN", "question": "main", "settings": {"memory": "none"}},
            {"name": "LMN", "question": "main", "settings": {"window": "none"}, "tuned_as": "DIN"},
            {"name": "counts", "question": "main", "counting": "item_all"},
            {
                "name": "size", "question": "size", "settings": {"window": "none"}, "tuned_as": "DIN",
                "sweep": {"sub_keys": [8, 4]}, "line": "LMN",
            },
            {"name": "cells 4", "question": "size", "counting": "cells_category_4"},
        ],
    }  # fmt: skip
    path = tmp_path / "tiny.toml"
    path.write_text(tomli_w.dumps(table))
    (tmp_path / "page.md").write_text(PAGE)
    return path


def _run(path: Path, *arguments: str) -> int:
    return main(["run", str(path), "--results", "results", "--out", "scratch", "--page", "page.md", *arguments])


def _results(kind: str = "*") -> dict[str, dict[str, object]]:
    return {path.stem: json.loads(path.read_text()) for path in Path("results/tiny").glob(f"{kind}.json")}


def test_a_study_runs_goes_on_and_is_reported(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(study, "--tune", "--only", "DIN", "--keep") == 0
    logs = [path.read_text() for path in Path("scratch/tiny/tune").rglob("*.log")]
    assert logs
    assert all("validation AUC" in log and "test split" not in log for log in logs)
    points = {path.stem: json.loads(path.read_text()) for path in Path("results/tiny/tune").glob("*.json")}
    assert all(each["test"] is None for each in points.values())  # who tunes does not see the test part
    found: dict[str, object] = {}  # the search again: an axis at a time, and what is the file's own value not twice
    score = {json.dumps(each["point"]): each["best"]["auc"] for each in points.values()}
    best = max((0.001, 0.01), key=lambda value: score[json.dumps({"learning_rate": value})])
    for name, own, other in (("embedding_std", 0.05, 0.2), ("window_size", 4, 3)):
        found = found or {"learning_rate": best}
        before = max(score[point] for point in score if len(json.loads(point)) <= len(found))
        found[name] = other if score[json.dumps({**found, name: other})] > before else own
    assert len(points) == 4
    assert _run(study, "--tune", "--only", "DIN") == 0  # over: nothing is run again
    assert len(list(Path("results/tiny/tune").glob("*.json"))) == 4

    assert _run(study, "--only", "DIN,counts", "--seeds", "0") == 0
    first_results = _results()
    assert set(first_results) == {"din-seed0", "counts-seed0"}
    assert first_results["din-seed0"]["tuned"] == found
    assert first_results["din-seed0"]["settings"]["training"]["learning_rate"] == best  # type: ignore[index]
    assert first_results["counts-seed0"]["test"]["log_loss"] is None  # type: ignore[index]
    first = Path("results/tiny/din-seed0.json").stat().st_mtime_ns
    assert not list(Path("scratch/tiny").glob("*/*.safetensors"))  # those of the tuning were kept

    assert _run(study, "--jobs", "2") == 0
    assert len(_results()) == 2 * 4 + 2
    assert Path("results/tiny/din-seed0.json").stat().st_mtime_ns == first
    capsys.readouterr()
    assert _run(study) == 0
    assert "10 runs, 10 of them are there already" in capsys.readouterr().err
    assert _run(study, "--only", "DIN,counts", "--seeds", "0", "--again") == 0
    assert capsys.readouterr().err.count("equal to the last digit") == 2
    assert Path("results/tiny/din-seed0.json").stat().st_mtime_ns == first
    spoilt = _results()["din-seed0"]
    spoilt["test"]["auc"] += 1e-9  # type: ignore[index]
    Path("results/tiny/din-seed0.json").write_text(json.dumps(spoilt))
    assert _run(study, "--only", "DIN", "--seeds", "0", "--again") == 1
    assert "1 of 1 runs do not repeat" in capsys.readouterr().err

    assert _run(study, "--report") == 0
    page = Path("page.md").read_text()
    assert MISSING not in page
    assert "By hand." in page
    assert "left alone" in page
    lines = page.splitlines()
    mean = estimate([_results()[f"din-seed{seed}"]["test"]["auc"] for seed in (0, 1)]).mean  # type: ignore[index]
    assert any(line.startswith(f"| DIN | 2 | {mean:.4f} ± ") for line in lines)
    assert any(line.startswith("| counts | - | ") for line in lines)
    sized = [line.split(" | ") for line in lines if line.startswith(("| size sub_keys=", "| cells "))]
    assert [row[0] for row in sized] == ["| size sub_keys=4", "| size sub_keys=8", "| cells 4"]  # along the axis
    assert [row[1:3] for row in sized] == [["16", "2"], ["64", "2"], ["16", "-"]]
    size = [[_results()[f"size-sub_keys-{n}-seed{k}"]["test"]["auc"] for k in (0, 1)] for n in (4, 8)]  # type: ignore[index]
    less = estimate([small - large for small, large in zip(*size, strict=True)]).mean
    assert sized[0][4].startswith(f"{less:+.4f}")
    assert sized[1][4] == ""
    assert (
        sum(" | less DIN | " in line for line in lines)
        == sum(" | less size sub_keys=8 | " in line for line in lines)
        == 1
    )
    assert any(line.startswith("| DIN | ") and "**" in line for line in lines)
    for name in ("main", "size"):
        assert Path(f"results/tiny/{name}.png").read_bytes().startswith(b"\x89PNG")
    history = page[page.index("| AUC by events before |") :].splitlines()
    sizes = [re.fullmatch(r"([\d,]+) \(\d+\)", cell.strip()) for cell in history[2].split("|")[2:-1]]
    assert sum(int(size[1]) for size in sizes if size) == 150  # every sample of the test part is in one range
    assert _run(study, "--report") == 0
    assert Path("page.md").read_text() == page


def test_results_of_other_settings_are_not_mixed(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(study, "--only", "DIN", "--seeds", "0", "--quick") == 0
    assert json.loads(Path("results/tiny-quick/din-seed0.json").read_text())["train_rows"] == 40
    assert _run(study, "--only", "DIN", "--seeds", "0") == 0
    study.write_text(study.read_text().replace("batch_size = 32", "batch_size = 16"))
    capsys.readouterr()
    assert _run(study, "--only", "DIN", "--seeds", "0") == 2
    error = capsys.readouterr().err
    assert "din-seed0.json" in error
    assert "batch_size" in error
    assert _run(study, "--report") == 2
    assert "din-seed0.json: is the result of other settings: training.batch_size" in capsys.readouterr().err
    assert Path("page.md").read_text() == PAGE
    assert _run(study, "--only", "DIN", "--seeds", "0", "--force") == 0
    assert _results()["din-seed0"]["settings"]["training"]["batch_size"] == 16  # type: ignore[index]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_is_stopped_goes_on(study: Path, number: signal.Signals) -> None:
    longer = {"batch_size = 32": "batch_size = 1", "epochs = 1": "epochs = 4\ncheckpoint_steps = 5"}
    text = study.read_text()
    for short, changed in longer.items():
        assert short in text
        text = text.replace(short, changed)
    study.write_text(text)
    command = [
        sys.executable,
        "-m",
        "benchmarks.study",
        "run",
        str(study),
        "--results",
        "results",
        "--out",
        "scratch",
    ]
    command += ["--only", "DIN", "--seeds", "0", "--keep"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as running:
        _wait_until(lambda: list(Path("scratch").rglob("last.safetensors")))
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    assert not _results()
    run = RunFolder("scratch/tiny/din-seed0")
    if number == signal.SIGINT:
        assert running.returncode == 130
        assert "stopped after 0 of 1 runs; the same command goes on" in said
        assert not _is_locked(run)
    else:  # the worker sees the closed pipe, finishes its step and saves
        _wait_until(lambda: not _is_locked(run))
    if number == signal.SIGINT:  # the data may have moved meanwhile
        Path("rows").rename("moved")
        command += ["--data", "moved"]
    assert main(command[3:]) == 0
    assert _results()["din-seed0"]["steps"] == 4 * 150
    resumed = re.findall(r"resumed at epoch (\d+), step (\d+)", run.log.read_text())
    assert len(resumed) == 1
    assert tuple(map(int, resumed[0])) > (1, 0)


def test_a_run_that_fails_does_not_stop_the_others(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The items have no such feature; the worker finds that out, in the first run of all.
    table = tomllib.loads(study.read_text())
    table["variant"][0]["settings"]["search_by"] = "colour"
    study.write_text(tomli_w.dumps(table))
    assert _run(study, "--only", "DIN,LMN", "--seeds", "0", "--jobs", "1") == 1
    assert set(_results()) == {"lmn-seed0"}
    error = capsys.readouterr().err
    assert "lmn: 1 of 2 runs failed:\n  DIN seed 0: " in error
    assert "colour" in error.split("runs failed:")[1]


def test_the_page_is_made_of_the_committed_results(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs/results/study", tmp_path / "results/study")
    page = Path(shutil.copy(ROOT / "docs/study.md", tmp_path))
    for path in sorted((ROOT / "benchmarks" / "study").glob("*.toml")):
        assert main(["run", str(path), "--report", f"--results={tmp_path}/results/study", f"--page={page}"]) == 0
    assert page.read_text() == (ROOT / "docs/study.md").read_text()


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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "tiny"', "name = tiny", "not a TOML file"),
        ("seeds = [", "seedz = [", "there is no key 'seedz'; did you mean 'seeds'?"),
        ('memory = "none"', 'memory = "nonee"', "memory must be one of"),
        ('name = "LMN"', 'name = "DIN"', "there are two variants 'DIN'"),
        ('reference = "DIN"', 'reference = "DIEN"', "reference names no variant, got 'DIEN'; did you mean 'DIN'?"),
        (
            'size = "size sub_keys=8"',
            'size = "LMNN"',
            "references: size names no variant, got 'LMNN'; did you mean 'LMN'?",
        ),
        ('size = "size sub_keys=8"', 'size = ["LMN"]', "references: size must be a text, got ['LMN']"),
        ('size = "size sub_keys=8"', 'sizes = "LMN"', "references: there is no question 'sizes'; did you mean 'size'?"),
        ('    "size",', '    "sizes",', "quick: there is no question 'sizes'; did you mean 'size'?"),
        ('counting = "item_all"', 'counting = "item"', "there is no heuristic 'item'"),
        ("learning_rate = [", "learning_rates = [", "there is no setting 'learning_rates'"),
    ],
)
def test_mistakes_are_one_line(
    study: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new, 1))
    assert _run(study) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("lmn: error: ")
    assert message in error[0]


def test_a_rehearsal_asks_the_questions_that_the_file_says(study: Path) -> None:
    whole, quick = load_study(study), load_study(study, quick=True)
    assert whole.asked() == whole.variants
    assert [each.name for each in quick.asked()] == ["size sub_keys=8", "size sub_keys=4", "cells 4"]
    assert quick.select(["DIN"])[0].name == "DIN"  # by name there is all


def test_statistics_are_those_of_scipy() -> None:
    for freedom in (1, 2, 3, 4, 9, 30):
        assert student_t_quantile(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=1e-9)
    values = [0.1, 0.4, 0.35, 0.8]
    low, high = scipy.stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=scipy.stats.sem(values))
    found = estimate(values)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))  # type: ignore[operator]
    ours, theirs = dict(enumerate(values)), {1: 0.1, 2: 0.3, 7: 9.0}
    assert paired_difference(ours, theirs) == estimate([0.4 - 0.1, 0.35 - 0.3])
    assert paired_difference(ours, {None: 0.5}) == estimate([v - 0.5 for v in values])
    assert paired_difference({None: 0.75}, {None: 0.5}) == estimate([0.25])
    assert paired_difference(ours, {9: 0.5}) is None


def test_a_curve_may_begin_at_zero(tmp_path: Path) -> None:
    run = {"test": {"auc": 0.6, "log_loss": 0.6}, "train_seconds": 3.0}
    draw_curves([("DIN", place, [run, run]) for place in (0.0, 0.5)], "dropout", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_differences_to_a_reference_are_a_panel_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr("benchmarks.study.figures._save", lambda figure, path: drawn.append(figure))
    value, less = estimate([0.7, 0.71]), estimate([-0.3, -0.29])
    dots = [
        Dot("LMN", value, True),
        Dot("DIN", value, False, less),
        Dot("unpaired", value, True),
        Dot("no", None, True),
    ]
    draw_dots(dots, "study", tmp_path / "dots.png")
    draw_dots(dots, "study", tmp_path / "dots.png", reference="LMN")
    draw_dots([dots[0], dots[2]], "study", tmp_path / "dots.png", reference="LMN")
    assert [len(figure.axes) for figure in drawn] == [1, 2, 1]
    aucs, differences = drawn[1].axes
    assert [text.get_text() for text in aucs.texts] == ["0.7050"] * 3
    (text,) = differences.texts
    assert (text.get_text(), text.xy) == ("-0.2950", (less.mean, 1))
    assert [text.get_text() for text in drawn[1].legends[0].texts] == ["with a memory", "no memory"]
    assert not drawn[2].legends
