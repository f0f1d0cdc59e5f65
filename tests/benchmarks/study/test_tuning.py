"""Tuning of a study with real runs: what is run, continued, recorded and reported."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from matplotlib.figure import Figure
from study_factory import write_study

from benchmarks.study.__main__ import main
from benchmarks.study.study_file import load_study

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
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: Path(file).touch())  # for the runs in this process
    return write_study(tmp_path)


def _run(path: Path, *arguments: str, results: str = "results") -> int:
    return main(["run", str(path), "--results", results, "--out", "scratch", "--page", "page.md", *arguments])


def _change(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    table = tomllib.loads(path.read_text())
    change(table)
    path.write_text(tomli_w.dumps(table))


def _trials(results: str = "results") -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in Path(results, "tiny/tune").glob("*.json")}


def _same(some: dict[str, dict[str, Any]], others: dict[str, dict[str, Any]]) -> bool:
    """Whether trials are at the same points, with the same scores."""
    compared = [{name: (each["point"], each["best"]["auc"]) for name, each in runs.items()} for runs in (some, others)]
    return compared[0] == compared[1]


def test_tuning_tries_its_points_and_the_runs_take_the_best(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _change(study, lambda table: table["base"]["training"].update(learning_rate=1e-6))  # beside the axis
    _change(study, lambda table: table["tune"].update(seeds=[2, 1]))
    assert _run(study, "--tune", "--only", "DIN", "--keep", HERE) == 0
    logs = [path.read_text() for path in Path("scratch/tiny/tune").rglob("train.log")]
    assert logs
    assert all("validation AUC" in log and "test split" not in log for log in logs)
    trials = _trials()
    assert all(each["test"] is None for each in trials.values())
    assert {each["trial"] for each in trials.values()} == {1, 2, 3}
    assert trials["din-trial1-seed2"]["point"] == {"learning_rate": 1e-6, "embedding_std": 0.05}  # its own settings
    scores: dict[int, dict[int, float]] = {}
    for each in trials.values():
        scores.setdefault(each["trial"], {})[each["seed"]] = each["best"]["auc"]
    means = {trial: sum(own.values()) / 2 for trial, own in scores.items() if len(own) == 2}
    best = max(means, key=means.__getitem__)
    assert best != 1
    said = capsys.readouterr().err
    assert "study tiny: tuning DIN, 3 trials each with seeds 2, 1" in said
    assert len(re.findall("DIN trial 2 of 3: embedding_std = 0.[0-9]+, learning_rate = 0.", said)) == 1
    assert f"DIN: tuned by 3 trials, {len(trials)} runs: valid AUC {means[best]:.4f} ± " in said

    assert _run(study, "--only", "DIN,LMN,counts", "--seeds", "0", HERE) == 0
    din, lmn = (json.loads(Path(f"results/tiny/{name}-seed0.json").read_text()) for name in ("din", "lmn"))
    assert din["tuned"] == lmn["tuned"] == trials[f"din-trial{best}-seed2"]["point"]
    assert din["settings"]["training"]["learning_rate"] == din["tuned"]["learning_rate"]
    assert din["tuning"] == lmn["tuning"]
    assert din["tuning"]["valid_auc"] == pytest.approx(means[best])
    assert din["tuning"]["valid_auc_std"] == pytest.approx(abs(scores[best][2] - scores[best][1]) / 2**0.5)
    assert (din["tuning"]["trials"], din["tuning"]["runs"], din["tuning"]["seeds"]) == (3, len(trials), [2, 1])

    assert _run(study, "--report") == 0
    row = next(line for line in Path("page.md").read_text().splitlines() if line.startswith("| DIN | 3 | "))
    assert row.startswith(f"| DIN | 3 | {len(trials)} | 2 | {means[1]:.4f} ± ")
    assert f" | {means[best]:.4f} ± " in row


def test_a_tuning_that_was_stopped_halfway_ends_in_the_same_choice(study: Path) -> None:
    assert _run(study, "--tune", "--only", "DIN", HERE) == 0
    complete = _trials()
    Path("half/tiny/tune").mkdir(parents=True)
    kept = sorted(complete)[: len(complete) // 2]
    for name in kept:
        shutil.copy2(f"results/tiny/tune/{name}.json", "half/tiny/tune")
    times = {name: Path(f"half/tiny/tune/{name}.json").stat().st_mtime_ns for name in kept}
    assert _run(study, "--tune", "--only", "DIN", HERE, results="half") == 0
    assert _same(_trials("half"), complete)
    assert {name: Path(f"half/tiny/tune/{name}.json").stat().st_mtime_ns for name in kept} == times


@pytest.mark.slow
def test_processes_at_a_time_do_not_change_the_trials(study: Path) -> None:
    for jobs in (1, 2):
        assert _run(study, "--tune", "--only", "DIN", f"--jobs={jobs}", results=f"results{jobs}") == 0
    assert _same(_trials("results1"), _trials("results2"))


def test_a_run_that_fails_makes_its_trial_the_worst(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The items have no such feature, which the worker of the second trial finds out.
    _change(study, lambda table: table.update(tune={"trials": 2, "seeds": [0], "search_by": ["colour"]}))
    assert _run(study, "--tune", "--only", "DIN", "--jobs", "2") == 0
    said = capsys.readouterr().err
    assert re.search(r"DIN trial 2 seed 0 failed: .*colour", said)
    assert "DIN trial 2: counts as the worst, for a run of it failed" in said
    assert "DIN: tuned by 2 trials, 1 of them failed, 2 runs: valid AUC " in said
    assert _trials()["din-trial2-seed0"]["best"] is None
    assert "colour" in _trials()["din-trial2-seed0"]["failed"]
    assert _run(study, "--tune", "--only", "DIN", HERE) == 0  # the failed run is not repeated, or it would raise
    assert _run(study, "--only", "DIN", "--seeds", "0", HERE) == 0
    assert json.loads(Path("results/tiny/din-seed0.json").read_text())["tuned"] == {"search_by": None}
    capsys.readouterr()
    assert _run(study, "--tune", "--only", "DIN", "--force", "--jobs", "1") == 0
    said = capsys.readouterr().err
    assert "DIN trial 2 seed 0 failed" in said  # with --force it is
    assert "DIN trial 1 seed 0" not in said


def test_seeds_of_the_tuning_come_from_the_file(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(study, "--tune", "--only", "DIN", "--seeds", "0") == 2
    assert "--seeds has no effect with --tune" in capsys.readouterr().err


def test_a_failure_of_the_machine_is_none_of_the_settings(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _change(study, lambda table: table["tune"].update(trials=2, seeds=[0]))
    taken = Path("scratch/tiny/tune/din-trial2-seed0")
    taken.parent.mkdir(parents=True)
    taken.touch()  # a file where the run needs a folder
    assert _run(study, "--tune", "--only", "DIN", "--jobs", "2") == 1
    said = capsys.readouterr().err
    assert "lmn: the tuning stopped, for runs failed that may work again; the same command repeats them:\n  DIN" in said
    assert {*_trials()} == {"din-trial1-seed0"}
    taken.unlink()
    assert _run(study, "--tune", "--only", "DIN", HERE) == 0
    assert {*_trials()} == {"din-trial1-seed0", "din-trial2-seed0"}


def test_without_optuna_the_error_says_what_to_install(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("proposals", "search", "run"):
        monkeypatch.delitem(sys.modules, f"benchmarks.study.tuning.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert _run(study, "--tune", "--only", "DIN") == 2
    assert "--tune needs Optuna; install it with: pip install 'lmn-kernels[bench]'" in capsys.readouterr().err


def test_a_model_that_never_works_is_an_error(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _change(study, lambda table: table["variant"][0]["settings"].update(search_by="colour"))
    assert _run(study, "--tune", "--only", "DIN", "--jobs", "2") == 1
    assert (
        "lmn: 1 of 1 models cannot be tuned, for no run of them worked:\n  DIN trial 1 seed 0: "
        in capsys.readouterr().err
    )
    assert _trials() == {}  # a later tuning tries again


def test_trials_of_other_settings_or_axes_are_refused(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _change(study, lambda table: table["tune"].update(trials=2, seeds=[0]))
    assert _run(study, "--tune", "--only", "DIN", HERE) == 0
    first = _trials()
    text = study.read_text()
    for change, named in (
        (lambda table: table["base"]["training"].update(batch_size=16), "training.batch_size"),
        (lambda table: table["tune"].update(dropout=[0.0, 0.1]), "dropout"),
        (lambda table: table["tune"].update(embedding_std=[0.3, 0.4], learning_rate=[0.3, 0.4]), "learning_rate"),
        (lambda table: table["base"]["model"].update(embedding_std=0.2), "embedding_std"),
    ):
        study.write_text(text)
        _change(study, change)
        capsys.readouterr()
        for arguments in (("--tune", "--only", "DIN"), ("--only", "DIN"), ("--report",)):
            assert _run(study, *arguments, HERE) == 2
            assert re.search(
                rf"din-trial\d-seed0.json: was tuned with other settings: .*{named}", capsys.readouterr().err
            )
    assert _trials() == first
    assert _run(study, "--tune", "--only", "DIN", "--force", HERE) == 0
    assert _trials()["din-trial1-seed0"]["settings"]["model"]["embedding_std"] == 0.2
    assert _run(study, "--tune", "--only", "DIN", HERE) == 0


def test_a_variant_may_have_axes_of_its_own_and_sets_some_itself(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(table: dict[str, Any]) -> None:
        del table["variant"][1]["tuned_as"]
        table["variant"][1]["tune"] = {"memory_learning_rate": [0.02, 0.05]}
        table["variant"][0]["settings"]["embedding_std"] = 0.1

    _change(study, change)
    found = load_study(study)
    din, lmn = found.select(["DIN", "LMN"])
    assert [*found.axes_of(din)] == ["learning_rate"]
    assert {*found.axes_of(lmn)} == {"learning_rate", "embedding_std", "memory_learning_rate"}
    quick = load_study(study, quick=True)
    assert quick.tune is not None
    assert (quick.tune.trials, quick.tune.seeds) == (2, (0,))
    assert _run(study, "--tune", "--only", "size", HERE) == 2
    assert "no variant given is tuned itself; they take the settings of DIN" in capsys.readouterr().err


def test_the_best_of_a_former_search_holds_until_there_are_trials(study: Path) -> None:
    _change(study, lambda table: table["tune"].update(trials=2, seeds=[0]))
    assert _run(study, "--tune", "--only", "DIN", HERE) == 0
    trials = _trials()
    low, high = sorted(trials.values(), key=lambda each: each["best"]["auc"])
    for path in Path("results/tiny/tune").glob("*.json"):
        path.unlink()
    for each, name in ((low, "din-low"), (high, "din-high")):  # such files have no number of a trial
        each = {key: value for key, value in each.items() if key != "trial"}
        Path(f"results/tiny/tune/{name}.json").write_text(json.dumps(each))
    assert _run(study, "--only", "DIN", "--seeds", "0", HERE) == 0
    assert json.loads(Path("results/tiny/din-seed0.json").read_text())["tuned"] == high["point"]
    assert _run(study, "--tune", "--only", "DIN", HERE) == 0  # the search does not use them
    assert {name: each for name, each in _trials().items() if "trial" in name}.keys() == trials.keys()
