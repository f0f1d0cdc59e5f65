"""The search of a tuning on made-up scores: what it finds, repeats and stops, and the axes that it reads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from benchmarks.study.settings import StudySettings
from benchmarks.study.tune_axes import Axis, Choices, Point, Range, Tune, read_axes
from benchmarks.study.tuning.search import Run, next_runs
from benchmarks.study.tuning.trials import Trial, best_trial, decided, is_stopped
from lmn_model.setting_types import SettingsError

LEVELS = (0, 1, 2, 3, 4)
GRID: dict[str, Axis] = {"a": Choices(LEVELS), "b": Choices(LEVELS)}
CORNER = {"a": 0, "b": 0}


def ridge(point: Point, seed: int = 0) -> float:
    """Rises along a = b from 0.6 to 0.8 and falls off beside it, with noise of the size of seeds."""
    a, b = point["a"], point["b"]
    return 0.6 + 0.05 * min(a, b) - 0.06 * abs(a - b) + 0.001 * math.sin(17 * seed + 5 * a + 3 * b)


def search(
    axes: Mapping[str, Axis],
    default: Point,
    tune: Tune,
    objective: Callable[[Point, int], float],
    found: dict[int, Trial] | None = None,
    most_runs: int = 10**6,
) -> tuple[dict[int, Trial], list[Run]]:
    """The trials of a search from those in ``found``, and the runs that it needed, at most so many."""
    trials, done = dict(found or {}), []
    while runs := next_runs(axes, default, tune, trials):
        for run in runs:
            if len(done) == most_runs:
                return trials, done
            scores = trials[run.trial].scores if run.trial in trials else {}
            trials[run.trial] = Trial(run.point, {**scores, run.seed: objective(run.point, run.seed)})
            done.append(run)
    return trials, done


def tune(trials: int, seeds: tuple[int, ...] = (0, 1, 2)) -> Tune:
    return Tune({}, trials, seeds)


def test_all_axes_at_once_find_what_one_after_the_other_cannot() -> None:
    own = {**CORNER}
    for name in GRID:
        own[name] = max(LEVELS, key=lambda value, name=name: ridge({**own, name: value}))
    assert own == CORNER  # stuck: each axis alone only loses
    trials, runs = search(GRID, CORNER, tune(14), ridge)
    best = best_trial(trials, (0, 1, 2))
    assert best is not None
    assert trials[best].point == {"a": 4, "b": 4}
    assert len(trials) == 14  # of 25 points
    assert len(runs) < 14 * 3
    assert len({tuple(trial.point.items()) for trial in trials.values()}) == 14
    assert trials[0].point == CORNER
    assert set(trials[0].scores) == {0, 1, 2}


def test_a_search_that_was_interrupted_continues_as_if_it_was_not() -> None:
    axes: dict[str, Axis] = {"a": Range(0.001, 1.0, True, False), "b": Range(1, 40, False, True)}
    default = {"a": 0.5, "b": 3}

    def score(point: Point, seed: int) -> float:
        return 0.7 - 0.01 * abs(math.log10(point["a"]) + 2) - 0.001 * abs(point["b"] - 20) + 0.001 * seed

    complete, runs = search(axes, default, tune(8), score)
    assert decided(complete, 8, (0, 1, 2)) == [*range(8)]
    assert all(axes[name].low <= trial.point[name] <= axes[name].high for trial in complete.values() for name in axes)
    for count in (7, len(runs) - 3):
        part, before = search(axes, default, tune(8), score, most_runs=count)
        rest, after = search(axes, default, tune(8), score, found=part)
        assert rest == complete
        assert len(before) + len(after) == len(runs)
    last = max(runs, key=lambda run: run.trial)
    alone = {number: trial for number, trial in complete.items() if number not in (last.trial, last.trial - 1)}
    alone[last.trial] = Trial(
        complete[last.trial].point, {0: complete[last.trial].scores[0]}
    )  # the other of its batch ended
    assert search(axes, default, tune(8), score, found=alone)[0] == complete
    more, added = search(axes, default, tune(10), score, found=complete)
    assert {number: more[number] for number in complete} == complete
    assert {run.trial for run in added} == {8, 9}


def test_a_space_of_fewer_points_than_trials_is_searched_whole() -> None:
    few: dict[str, Axis] = {"a": Choices((0, 1)), "b": Choices(([1, 2], [3]))}
    trials, _ = search(few, {"a": 0, "b": [3]}, tune(12, (0,)), lambda point, _: 0.5 + 0.1 * point["a"])
    points = [tuple(map(str, trial.point.values())) for trial in trials.values()]
    assert sorted(points) == sorted(itertools.product("01", ("[1, 2]", "[3]")))
    outside, _ = search(few, {"a": 7, "b": [3]}, tune(12, (0,)), lambda point, _: 0.5 - 0.01 * point["a"])
    assert outside[0].point == {"a": 7, "b": [3]}  # a variant's own settings need not lie on the axes
    assert len(outside) == 5


def test_a_trial_below_the_median_of_the_first_seeds_stops() -> None:
    first = {0: 0.60, 1: 0.70, 2: 0.69, 3: 0.61}
    trials = {number: Trial({}, {0: score}) for number, score in first.items()}
    stopped = [number for number in trials if is_stopped(trials, number, 4, (0, 1, 2))]
    assert stopped == [3]  # the median is 0.65; the first trial is the default, and runs all seeds
    trials[3] = Trial({}, {0: 0.61, 1: 0.9, 2: 0.9})
    assert best_trial(trials, (0, 1, 2)) == 3
    assert not is_stopped(trials, 3, 4, (0, 1, 2))


def test_a_failed_run_makes_its_trial_the_worst_and_the_search_continues() -> None:
    def score(point: Point, seed: int) -> float:
        return math.nan if point["a"] == 4 and seed == 1 else ridge(point, seed)

    trials, _ = search(GRID, CORNER, tune(14), score)
    failed = [number for number, trial in trials.items() if trial.failed]
    assert failed
    assert len(trials) == 14
    assert decided(trials, 14, (0, 1, 2)) == [*range(14)]
    best = best_trial(trials, (0, 1, 2))
    assert best is not None
    assert best not in failed
    assert ridge(trials[best].point) >= 0.69  # 0.6 at the start
    trials, _ = search(GRID, CORNER, tune(4), lambda point, seed: math.nan)
    assert len(trials) == 4
    assert best_trial(trials, (0, 1, 2)) is None


BASE = StudySettings()


def test_axes_are_lists_or_ranges_of_numbers() -> None:
    axes = read_axes(
        {
            "hidden": [[8], [8, 4]],
            "weight_decay": [0, 0.3],
            "learning_rate": {"low": 0.0005, "high": 1, "log": True},
            "embedding_dim": {"low": 4, "high": 32},
            "window": [5, 10],
        },
        BASE,
        "tune",
    )
    assert axes == {
        "hidden": Choices(([8], [8, 4])),
        "weight_decay": Choices((0.0, 0.3)),
        "learning_rate": Range(0.0005, 1.0, True, False),
        "embedding_dim": Range(4, 32, False, True),
        "window_size": Choices((5, 10)),  # its name in earlier releases
    }
    assert [axis.size for axis in axes.values()] == [2, 2, None, 29, 2]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"learning_rat": [0.1]}, "tune: there is no setting 'learning_rat'"),
        ({"learning_rat": {"low": 1, "high": 2}}, "there is no setting 'learning_rat'"),
        ({"learning_rate": 0.1}, r"tune: learning_rate must be a list of values or \{ low, high, log \}, got 0.1"),
        ({"learning_rate": []}, r"learning_rate must be a list of values or .* got \[\]"),
        ({"learning_rate": [0.1, 0.1]}, r"must be a list of different values, got \[0.1, 0.1\]"),
        ({"learning_rate": ["x"]}, "tune: learning_rate must be a number, got 'x'"),
        ({"learning_rate": {"low": -1.0, "high": 1.0}}, "learning_rate must be .* got -1.0"),
        ({"learning_rate": {"low": 0.1}}, "must have the keys low and high"),
        ({"learning_rate": {"low": 0.1, "high": 0.1}}, "must have low < high, got 0.1 and 0.1"),
        ({"learning_rate": {"low": 0.1, "high": 1, "step": 1}}, "the keys low, high and log alone, got 'step'"),
        ({"weight_decay": {"low": 0, "high": 1, "log": True}}, "low must be greater than 0 for a logarithmic range"),
        ({"embedding_dim": {"low": 4.5, "high": 8}}, "embedding_dim: low must be an integer, got 4.5"),
        ({"window": {"low": 1, "high": 8}}, "must be a list of values, for a setting without a number has no range"),
    ],
)
def test_wrong_axes_are_named(table: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_axes(table, BASE, "tune")
