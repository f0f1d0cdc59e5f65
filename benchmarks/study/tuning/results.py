"""What the result files of a tuning hold: the trials of each variant, and the settings that were chosen.

Each run has a file of its own, named by variant, trial and seed, so the files are all that a tuning needs to continue.
Files without the number of a trial come from a former search, of one axis after the other with one seed. Where a
variant has no trials, the best of them holds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.study.jobs import TUNE, Job, Places, differing, make_job
from benchmarks.study.result_files import read_result
from benchmarks.study.study_file import Study
from benchmarks.study.tune_axes import Point, Tune, plain
from benchmarks.study.tuning.trials import Trial, best_trial, budget_of, decided
from benchmarks.study.variants import StudyError, Variant


@dataclass(frozen=True)
class Tuned:
    """What the tuning of a variant found.

    Args:
        point: the settings with the highest mean validation AUC.
        scores: validation AUC there, by seed.
        default: validation AUC of the variant's own settings, by seed; empty if they were not run.
        trials: points that were tried.
        runs: trainings.
        failed: trials in which a run failed.
        is_complete: whether all trials were run.
    """

    point: Point
    scores: Mapping[int, float]
    default: Mapping[int, float]
    trials: int
    runs: int
    failed: int = 0
    is_complete: bool = True

    def describe(self) -> dict[str, Any]:
        """For the result files of runs that use the settings; the spread is the standard deviation over seeds."""
        scores = [*self.scores.values()]
        return {
            "trials": self.trials,
            "failed_trials": self.failed,
            "runs": self.runs,
            "seeds": [*self.scores],
            "valid_auc": statistics.fmean(scores),
            "valid_auc_std": statistics.stdev(scores) if len(scores) > 1 else None,
        }


def default_point(study: Study, variant: Variant) -> Point:
    """The variant's own settings along its axes."""
    return {name: plain(variant.settings.value(name)) for name in study.axes_of(variant)}


def trial_job(
    study: Study, variant: Variant, trial: int, seed: int, point: Point, places: Places, keep: bool = False
) -> Job:
    """The run of a trial with ``seed``; the search counts trials from 0, files and messages from 1."""
    return make_job(study, variant, seed, places, point=point, trial=trial + 1, keep=keep)


def read_trials(study: Study, tune: Tune, variant: Variant, places: Places) -> dict[int, Trial]:
    """The trials of ``variant`` that have a result, by number.

    Raises:
        StudyError: a result file is damaged, or of other settings or axes than the study's.
    """
    trials: dict[int, Trial] = {}
    for number in range(tune.trials):
        scores: dict[int, float] = {}
        point: Point | None = None
        for path, seed in _trial_files(study, tune, variant, number, places):
            result = read_result(path)
            if names := _changed(study, variant, number, seed, result, point, places):
                raise StudyError(f"{path}: was tuned with other settings: {', '.join(names)}; tune with --force")
            point = result["point"]
            scores[seed] = math.nan if result["best"] is None else result["best"]["auc"]
        if point is not None:
            trials[number] = Trial(point, scores)
    return trials


def remove_stale(study: Study, tune: Tune, variant: Variant, places: Places) -> None:
    """Remove the results of ``variant``'s tuning that are of other settings, damaged, or of runs that failed."""
    for number in range(tune.trials):
        point: Point | None = None
        for path, seed in _trial_files(study, tune, variant, number, places):
            try:
                result = read_result(path)
            except StudyError:
                path.unlink()
                continue
            if result["best"] is None or _changed(study, variant, number, seed, result, point, places):
                path.unlink()
            else:
                point = result["point"]


def _trial_files(study: Study, tune: Tune, variant: Variant, number: int, places: Places) -> list[tuple[Path, int]]:
    """The result files of a trial that exist, and their seeds."""
    jobs = [make_job(study, variant, seed, places, trial=number + 1) for seed in tune.seeds]
    return [(job.result, job.seed) for job in jobs if job.result.exists()]


def find_tuned(study: Study, variants: Sequence[Variant], places: Places) -> dict[str, Tuned]:
    """What was found for each of ``variants``, by name; those that were not tuned are not in it.

    Raises:
        StudyError: as :func:`read_trials`.
    """
    if study.tune is None:
        return {}
    former = _read_former(study, places)
    found: dict[str, Tuned] = {}
    for variant in variants:
        trials = read_trials(study, study.tune, variant, places)
        tuned = _tuned(study, study.tune, variant, trials) if trials else None
        if not trials and variant.name in former:
            tuned = _former_tuned(study, variant, former[variant.name], places)
        if tuned is not None:
            found[variant.name] = tuned
    return found


def _tuned(study: Study, tune: Tune, variant: Variant, trials: Mapping[int, Trial]) -> Tuned | None:
    best = best_trial(trials, tune.seeds)
    if best is None:
        return None
    budget = budget_of(study.axes_of(variant), default_point(study, variant), tune.trials)
    return Tuned(
        trials[best].point,
        {seed: trials[best].scores[seed] for seed in tune.seeds},
        trials[0].scores if 0 in trials and not trials[0].failed else {},
        len(trials),
        sum(len(trial.scores) for trial in trials.values()),
        sum(trial.failed for trial in trials.values()),
        len(decided(trials, budget, tune.seeds)) == budget,
    )


def _changed(
    study: Study,
    variant: Variant,
    number: int,
    seed: int,
    result: Mapping[str, Any],
    point: Point | None,
    places: Places,
) -> list[str]:
    """Names of the settings for which a result is not one of the trial, whose other results are at ``point``."""
    axes, found = study.axes_of(variant), result.get("point") or {}
    if names := sorted({*axes} ^ {*found}):
        return names
    if number == 0:
        point = default_point(study, variant)
    if point is not None and found != point:
        return sorted(name for name in axes if found[name] != point[name])
    if number > 0 and (names := [name for name, axis in axes.items() if found[name] not in axis]):
        return names
    return differing(result, trial_job(study, variant, number, seed, found, places))


def _read_former(study: Study, places: Places) -> dict[str, list[dict[str, Any]]]:
    """Results of the former search, by variant."""
    former: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((places.results / study.name / TUNE).glob("*.json")):
        result = read_result(path)
        if "trial" not in result:
            former.setdefault(result["variant"], []).append({**result, "path": path})
    return former


def _former_tuned(study: Study, variant: Variant, results: Sequence[Mapping[str, Any]], places: Places) -> Tuned:
    own = default_point(study, variant)
    runs: list[tuple[Point, dict[int, float]]] = []
    for result in sorted(results, key=lambda each: len(each["point"])):
        job = make_job(study, variant, result["seed"], places, point=result["point"])
        if names := differing(result, job):
            raise StudyError(f"{result['path']}: was tuned with other settings: {', '.join(names)}; tune again")
        runs.append(({**own, **result["point"]}, {job.seed: result["best"]["auc"]}))
    point, scores = max(runs, key=lambda run: max(run[1].values()))
    default = next((scores for point, scores in runs if point == own), {})
    return Tuned(point, scores, default, len(runs), len(runs))
