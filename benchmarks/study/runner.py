"""Running the jobs of a study, several at a time, each in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from benchmarks.result_files import ROOT
from benchmarks.study.jobs import THREADS, Job, differing
from benchmarks.study.result_files import read_result
from benchmarks.study.settings import StudySettings
from benchmarks.study.study_file import StudyError
from lmn_model.signals import stop_requests
from lmn_model.training import TrainingInterrupted
from lmn_model.training.default_sizes import take_sizes
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.settings import SettingsError

COMPARED = ("test", "best", "test_by_history")
"""What a run that is repeated must give again."""
POLL_SECONDS = 0.1
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
logger = logging.getLogger("lmn")


class StudyFailed(Exception):
    """Some runs failed, the others are done; the message lists them."""


class StudyStopped(TrainingInterrupted):
    """A signal asked to stop; the runs have saved their states."""


def open_jobs(jobs: Sequence[Job], force: bool = False) -> list[Job]:
    """Those of ``jobs`` that have no result yet.

    Args:
        jobs: all.
        force: run those anew that have a result of other settings, and remove half-done runs with other settings.

    Raises:
        StudyError: there is a result or a half-done run of other settings, and ``force`` is False.
    """
    todo, stale = [], []
    for job in jobs:
        if job.result.exists():
            names = differing(read_result(job.result), job)
            if not names:
                continue
            if not force:
                raise StudyError(f"{job.result}: is the result of other settings: {', '.join(names)}; "
                                 "move it away, or run it anew with --force")  # fmt: skip
        todo.append(job)
        if _has_stale_run(job):
            if not force:
                raise StudyError(f"{job.run_folder}: holds a run with other settings; "
                                 "move it away, or remove it with --force")  # fmt: skip
            stale.append(job.run_folder)
    for folder in stale:
        shutil.rmtree(folder)
    return todo


def run_jobs(jobs: Sequence[Job], count: int) -> None:
    """Run ``jobs``, ``count`` at a time, with a progress bar and a line for each that is over.

    Raises:
        StudyFailed: runs failed; all others were run.
        StudyStopped: SIGINT or SIGTERM came. Runs that were at work saved their states and go on the next time.
    """
    waiting = list(jobs)
    running: list[_Worker] = []
    failures: list[_Worker] = []
    over = 0
    bar = tqdm(total=len(jobs), desc="runs", unit=" runs", disable=None, leave=False)
    with stop_requests() as stop, logging_redirect_tqdm([logger]), bar:
        try:
            while (waiting or running) and not stop.is_set():
                while waiting and len(running) < count:
                    running.append(_Worker(waiting.pop(0)))
                stop.wait(POLL_SECONDS)
                for worker in [each for each in running if each.process.poll() is not None]:
                    running.remove(worker)
                    bar.update()
                    over += 1
                    if not worker.report(over, len(jobs)):
                        failures.append(worker)
        finally:
            _stop(running)
    if stop.is_set():
        raise StudyStopped(f"stopped after {over} of {len(jobs)} runs; the same command goes on")
    if failures:
        lines = "".join(f"\n  {worker.job}: {worker.reason()} (see {worker.log})" for worker in failures)
        raise StudyFailed(f"{len(failures)} of {len(jobs)} runs failed:{lines}")


def run_again(jobs: Sequence[Job], folder: Path, count: int) -> None:
    """Run those of ``jobs`` that have a result again and log how the metrics compare; the results stay as they are.

    Args:
        jobs: the runs.
        folder: scratch folder for what the new runs give.
        count: runs at a time.

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
    other = []
    for job, repeat in zip(known, repeats, strict=True):
        old, new = read_result(job.result), read_result(repeat.result)
        if [new[part] for part in COMPARED] == [old[part] for part in COMPARED]:
            logger.info("%s: equal to the last digit", job)
        else:
            other.append(f"\n  {job}: {_in_words(old)} before, {_in_words(new)} now")
    if other:
        raise StudyFailed(f"{len(other)} of {len(repeats)} runs do not repeat:{''.join(other)}")


class _Worker:
    """A process at work on a job; what it prints goes to a file beside the run folder."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.log = job.run_folder.with_name(f"{job.run_folder.name}.log")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        path = os.pathsep.join(
            filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
        )  # the worker is no installed module
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(THREADS)), "PYTHONPATH": path}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.study.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C comes to this process alone, which passes it on
            )
        if self.process.stdin is None:
            raise RuntimeError("the process of a run must have a pipe for its job")
        try:
            self.process.stdin.write(json.dumps(job.to_dict()).encode() + b"\n")
            self.process.stdin.flush()  # and stays open: see the worker
        except BrokenPipeError:  # it ended at once, and its exit code says so
            pass

    def report(self, place: int, total: int) -> bool:
        """Log what became of the run, which is over; whether it has a result."""
        seconds = time.monotonic() - self.started
        self._close()
        if self.process.returncode != 0:
            logger.error("%s failed: %s (%d of %d)", self.job, self.reason(), place, total)
            return False
        result = read_result(self.job.result)
        logger.info("%s: %s, %.0f s (%d of %d)", self.job, _in_words(result), seconds, place, total)
        if not self.job.keep:
            self.log.unlink(missing_ok=True)
        return True

    def reason(self) -> str:
        """Why the run failed: the last line that it printed, or the signal that ended it."""
        if self.process.returncode < 0:
            number = -self.process.returncode
            hint = ", perhaps for want of memory" if number == signal.SIGKILL else ""
            return f"ended by {signal.Signals(number).name}{hint}"
        return _last_line(self.log) or f"exit code {self.process.returncode}"

    def stop(self) -> None:
        """Wait for the process, which has been asked to stop."""
        self.process.wait()
        self._close()

    def _close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()


def _stop(running: Sequence[_Worker]) -> None:
    """Ask all to stop and wait until they have; a second Ctrl-C meanwhile ends them at once."""
    for worker in running:
        worker.process.terminate()
    try:
        for worker in running:
            worker.stop()
    except BaseException:
        for worker in running:
            worker.process.kill()
        raise


def _has_stale_run(job: Job) -> bool:
    folder = RunFolder(job.run_folder)
    if not folder.holds_run():
        return False
    try:
        found = folder.load_settings(StudySettings)
    except SettingsError:
        return True
    own = found.data.path  # known by its content: the checkpoint checks that
    return found != take_sizes(job.settings if own is None else job.settings.override({"path": own}), found)


def _in_words(result: dict[str, Any]) -> str:
    valid = f"valid AUC {result['best']['auc']:.4f}"
    return valid if result["test"] is None else f"{valid}, test AUC {result['test']['auc']:.4f}"


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
