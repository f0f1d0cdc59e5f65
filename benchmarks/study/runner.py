"""Run the jobs of a study, several at a time, each in a process of its own."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from benchmarks.study.jobs import Job, differing
from benchmarks.study.process import JobProcess, stop_all
from benchmarks.study.result_files import read_result
from benchmarks.study.settings import StudySettings
from benchmarks.study.variants import StudyError
from benchmarks.study.worker import EXIT_FILES, run_job
from lmn_model.signals import stop_requests
from lmn_model.training import TrainingInterrupted
from lmn_model.training.default_sizes import take_sizes
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.settings import SettingsError

COMPARED = ("test", "best", "test_by_history", "test_by_item_age", "test_while_writing")
"""What a repeated run must reproduce, as far as the earlier result has it."""
POLL_SECONDS = 0.1
logger = logging.getLogger("lmn")


class FailedRun(NamedTuple):
    """A run that failed, why, and whether the machine failed (see :data:`benchmarks.study.worker.FILE_ERRORS`)."""

    job: Job
    reason: str
    by_machine: bool = False


class StudyFailed(Exception):
    """Some runs failed, the others are done; the message lists them.

    Args:
        runs: that failed.
        summary: first line of the message.
    """

    def __init__(self, runs: Sequence[FailedRun], summary: str) -> None:
        self.runs = runs
        super().__init__(f"{summary}:" + "".join(f"\n  {run.job}: {run.reason}" for run in runs))


class StudyStopped(TrainingInterrupted):
    """A signal requested a stop; the runs have saved their states."""


def open_jobs(jobs: Sequence[Job], force: bool = False) -> list[Job]:
    """Those of ``jobs`` that have no result; with ``force`` also those with a result of other settings.

    ``force`` removes unfinished runs of other settings.

    Raises:
        StudyError: there is a result or an unfinished run of other settings, and ``force`` is False.
    """
    todo, stale = [], []
    for job in jobs:
        if job.result.exists():
            names = differing(read_result(job.result), job)
            if not names:
                continue
            if not force:
                raise StudyError(f"{job.result}: is the result of other settings: {', '.join(names)}; "
                                 "move it away, or run it again with --force")  # fmt: skip
        todo.append(job)
        if _has_stale_run(job):
            if not force:
                raise StudyError(f"{job.run_folder}: holds a run with other settings; "
                                 "move it away, or remove it with --force")  # fmt: skip
            stale.append(job.run_folder)
    for folder in stale:
        shutil.rmtree(folder)
    return todo


def run_jobs(jobs: Sequence[Job], count: int, numbered: bool = True) -> None:
    """Run ``jobs``, with a progress bar and a line for each that ends.

    Args:
        jobs: the runs.
        count: processes at a time; 0 runs the jobs in this process, where a debugger can follow them.
        numbered: whether a line says how many runs have ended.

    Raises:
        StudyFailed: runs failed; all others were run.
        StudyStopped: SIGINT or SIGTERM came. Runs saved their states, and the same jobs continue from them.
    """
    if count == 0:
        for place, job in enumerate(jobs, start=1):
            logger.info("%s: %s%s", job, describe_result(run_job(job)), f" ({place} of {len(jobs)})" * numbered)
        return
    waiting = list(jobs)
    running: list[JobProcess] = []
    failures: list[JobProcess] = []
    ended = 0
    bar = tqdm(total=len(jobs), desc="runs", unit=" runs", disable=None, leave=False)
    with stop_requests() as stop, logging_redirect_tqdm([logger]), bar:
        try:
            while (waiting or running) and not stop.is_set():
                while waiting and len(running) < count:
                    running.append(JobProcess(waiting.pop(0)))
                stop.wait(POLL_SECONDS)
                for process in [each for each in running if each.poll() is not None]:
                    running.remove(process)
                    bar.update()
                    ended += 1
                    if not _report(process, f" ({ended} of {len(jobs)})" * numbered):
                        failures.append(process)
        finally:
            stop_all(running)
    if stop.is_set():
        raise StudyStopped(f"stopped after {ended} of {len(jobs)} runs; the same command continues them")
    if failures:
        runs = [
            FailedRun(process.job, f"{process.reason()} (see {process.log})", process.returncode == EXIT_FILES)
            for process in failures
        ]
        raise StudyFailed(runs, f"{len(failures)} of {len(jobs)} runs failed")


def run_again(jobs: Sequence[Job], folder: Path, count: int) -> None:
    """Repeat those of ``jobs`` that have a result in ``folder`` and compare the metrics; the results stay as they are.

    Raises:
        StudyError: none has a result, or one is of other settings.
        StudyFailed: metrics differ, or as in :func:`run_jobs`.
        StudyStopped: as in :func:`run_jobs`.
    """
    known = [job for job in jobs if job.result.exists()]
    if not known:
        raise StudyError("there is no result to compare with; run without --again first")
    open_jobs(known)  # refuses results of other settings
    if folder.exists():
        shutil.rmtree(folder)
    repeats = [replace(job, result=folder / job.result.name, run_folder=folder / job.run_folder.name) for job in known]
    run_jobs(repeats, count)
    changed = []
    for job, repeat in zip(known, repeats, strict=True):
        old, new = read_result(job.result), read_result(repeat.result)
        if all(new[part] == old[part] for part in COMPARED if part in old):
            logger.info("%s: equal to the last digit", job)
        else:
            changed.append(FailedRun(job, f"{describe_result(old)} before, {describe_result(new)} now"))
    if changed:
        raise StudyFailed(changed, f"{len(changed)} of {len(repeats)} runs do not repeat")


def describe_result(result: dict[str, Any]) -> str:
    """The AUC of a run, in words."""
    valid = f"valid AUC {result['best']['auc']:.4f}"
    return valid if result["test"] is None else f"{valid}, test AUC {result['test']['auc']:.4f}"


def _report(process: JobProcess, place: str) -> bool:
    """Log the end of a run; whether it has a result."""
    seconds = time.monotonic() - process.started
    process.close()
    if process.returncode != 0:
        logger.error("%s failed: %s%s", process.job, process.reason(), place)
        return False
    logger.info("%s: %s, %.0f s%s", process.job, describe_result(read_result(process.job.result)), seconds, place)
    if not process.job.keep:
        process.log.unlink(missing_ok=True)
    return True


def _has_stale_run(job: Job) -> bool:
    folder = RunFolder(job.run_folder)
    if not folder.holds_run():
        return False
    try:
        found = folder.load_settings(StudySettings)
    except SettingsError:
        return True
    own = found.data.path  # the data may have moved: the checkpoint identifies them by their content
    return found != take_sizes(job.settings if own is None else job.settings.override({"path": own}), found)
