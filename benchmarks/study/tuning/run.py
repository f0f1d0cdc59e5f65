"""Tune variants: rounds of runs until the search needs no more."""

from __future__ import annotations

import logging
import shutil
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.study.jobs import Job, Places
from benchmarks.study.runner import FailedRun, StudyFailed, open_jobs, run_jobs
from benchmarks.study.study_file import Study
from benchmarks.study.tune_axes import Point, Tune
from benchmarks.study.tuning.results import Tuned, default_point, find_tuned, read_trials, remove_stale, trial_job
from benchmarks.study.tuning.search import next_runs
from benchmarks.study.tuning.trials import Trial, best_trial, budget_of, decided, threshold
from benchmarks.study.variants import StudyError, Variant
from lmn_model.files import write_json

MACHINE_FAILED = "the tuning stopped, for runs failed that may work again; the same command repeats them"
logger = logging.getLogger("lmn")


def tune_study(
    study: Study, variants: Sequence[Variant], places: Places, count: int, *, keep: bool = False, force: bool = False
) -> None:
    """Run what the tuning of ``variants`` lacks, and log what it decides.

    A run that fails makes its trial the worst, and the search continues. A variant none of whose runs has worked is not
    tuned further, for then the cause is hardly a setting. A failure of the machine, such as a full disk, ends the
    tuning, for it must not decide which settings are best.

    Args:
        study: with axes, trials and seeds.
        variants: those that take the settings of another are skipped.
        places: of the files.
        count: processes at a time, as in :func:`benchmarks.study.runner.run_jobs`.
        keep: keep run folders.
        force: first remove results of other settings and of runs that failed.

    Raises:
        StudyError: the study has no ``[tune]``, none of ``variants`` is tuned itself, or there are results of other
            settings and ``force`` is False.
        StudyFailed: no run of a variant worked, and the others are tuned; or the machine failed.
        StudyStopped: as in :func:`benchmarks.study.runner.run_jobs`.
    """
    if study.tune is None:
        raise StudyError(f"study {study.name}: there is nothing to tune; it has no [tune] with axes")
    tuned = [each for each in variants if each.is_tuned]
    if not tuned:
        sources = ", ".join(sorted({each.tuned_as for each in variants if each.tuned_as}))
        hint = f"; they take the settings of {sources}" if sources else ""
        raise StudyError(f"study {study.name}: there is nothing to tune; no variant given is tuned itself{hint}")
    if force:
        for each in tuned:
            remove_stale(study, study.tune, each, places)
    searches = {each.name: _Search(study, study.tune, each, places, keep) for each in tuned}
    seeds = ", ".join(map(str, study.tune.seeds))
    models = f"{len(tuned)} models" if len(tuned) > 1 else tuned[0].name
    logger.info("study %s: tuning %s, %d trials each with seeds %s", study.name, models, study.tune.trials, seeds)
    broken: list[FailedRun] = []
    while jobs := [job for search in searches.values() for job in search.next_jobs()]:
        try:
            run_jobs(open_jobs(jobs, force), count, numbered=False)
        except StudyFailed as failed:
            runs = sorted(failed.runs, key=lambda run: str(run.job))
            for run in runs:
                if not run.by_machine and searches[run.job.variant].has_worked():
                    _record_failure(run)
            if by_machine := [run for run in runs if run.by_machine]:
                raise StudyFailed(by_machine, MACHINE_FAILED) from failed
            never = {run.job.variant for run in runs if not searches[run.job.variant].has_worked()}
            broken += [run for run in runs if run.job.variant in never]
            searches = {name: search for name, search in searches.items() if name not in never}
        for search in searches.values():
            search.log_decisions()
    chosen = find_tuned(study, tuned, places)
    for name in searches:
        if name in chosen:
            logger.info("%s", describe_tuned(name, chosen[name]))
        else:
            logger.warning("%s: nothing was chosen, for no trial has run all its seeds", name)
    if broken:
        count_broken = len({run.job.variant for run in broken})
        raise StudyFailed(broken, f"{count_broken} of {len(tuned)} models cannot be tuned, for no run of them worked")


def describe_point(point: Point) -> str:
    """The settings of a point in words."""
    return ", ".join(f"{name} = {value}" for name, value in point.items())


def describe_tuned(name: str, found: Tuned) -> str:
    """The outcome of a tuning in one line."""
    untuned = f", {statistics.fmean(found.default.values()):.4f} untuned" if found.default else ""
    failed = f", {found.failed} of them failed" if found.failed else ""
    return (
        f"{name}: tuned by {found.trials} trials{failed}, {found.runs} runs: valid AUC "
        f"{_scores(found.scores)}{untuned}: {describe_point(found.point)}"
    )


class _Search:
    """The tuning of one variant, and which of its trials the log has reported."""

    def __init__(self, study: Study, tune: Tune, variant: Variant, places: Places, keep: bool) -> None:
        self.study, self.tune, self.variant, self.places, self.keep = study, tune, variant, places, keep
        self.axes, self.default = study.axes_of(variant), default_point(study, variant)
        self.budget = budget_of(self.axes, self.default, tune.trials)
        self.reported = {*decided(self.trials(), self.budget, tune.seeds)}

    def trials(self) -> dict[int, Trial]:
        return read_trials(self.study, self.tune, self.variant, self.places)

    def has_worked(self) -> bool:
        return any(not trial.failed for trial in self.trials().values())

    def next_jobs(self) -> list[Job]:
        runs = next_runs(self.axes, self.default, self.tune, self.trials())
        for run in runs:
            if run.seed == self.tune.seeds[0]:
                point = describe_point(run.point)
                logger.info("%s trial %d of %d: %s", self.variant.name, run.trial + 1, self.budget, point)
        return [
            trial_job(self.study, self.variant, run.trial, run.seed, run.point, self.places, self.keep) for run in runs
        ]

    def log_decisions(self) -> None:
        trials = self.trials()
        for number in decided(trials, self.budget, self.tune.seeds):
            if number not in self.reported:
                self.reported.add(number)
                logger.info("%s trial %d: %s", self.variant.name, number + 1, self._decision(trials, number))

    def _decision(self, trials: Mapping[int, Trial], number: int) -> str:
        trial, first = trials[number], self.tune.seeds[0]
        if trial.failed:
            return "counts as the worst, for a run of it failed"
        if trial.mean(self.tune.seeds) is None:
            least = threshold(trials, number, self.budget, first)
            return f"stopped; {trial.scores[first]:.4f} with seed {first} is below the median, {least:.4f}"
        best = best_trial({n: trials[n] for n in range(number + 1) if n in trials}, self.tune.seeds)
        return f"valid AUC {_scores(trial.scores)}{', the best so far' if best == number else ''}"


def _scores(scores: Mapping[int, float]) -> str:
    """Mean and standard deviation."""
    values = [*scores.values()]
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}"


def _record_failure(run: FailedRun) -> None:
    """Write a result file without scores, so that the run counts as failed and is not repeated."""
    job = run.job
    job.result.parent.mkdir(parents=True, exist_ok=True)
    write_json(job.result, {**job.describe(), "test": None, "best": None, "failed": run.reason})
    if job.run_folder.exists() and not job.keep:
        shutil.rmtree(job.run_folder)
