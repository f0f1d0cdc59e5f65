"""Run the commands of ``python -m benchmarks.study``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from benchmarks.study.contents.command import run_contents
from benchmarks.study.demo import DEMO, format_table, run_demo
from benchmarks.study.jobs import Places
from benchmarks.study.plan import next_tuning_jobs, study_jobs
from benchmarks.study.report import write_report
from benchmarks.study.runner import StudyFailed, open_jobs, run_again, run_jobs
from benchmarks.study.study_file import load_study
from lmn_model.cli.output import complain, print_result
from lmn_model.training import TrainingInterrupted

logger = logging.getLogger("lmn")


EXIT_FAILED = 1


def run_study(arguments: argparse.Namespace) -> int:
    """Run what the study has no results of, or with ``--report`` make its tables and figures; 1 if runs failed.

    Raises:
        StudyError, SettingsError: the file of the study is wrong, or results are there of other settings.
        StudyStopped: as in :func:`benchmarks.study.runner.run_jobs`.
    """
    try:
        _run_study(arguments)
    except StudyFailed as failed:
        complain(f"lmn: {failed}")
        return EXIT_FAILED
    return 0


def _run_study(arguments: argparse.Namespace) -> None:
    study = load_study(arguments.study, quick=arguments.quick)
    if arguments.report:
        for path in write_report(study, Path(arguments.results), Path(arguments.page)):
            print_result(str(path))
        return
    variants = study.asked() if arguments.only is None else study.select(_names(arguments.only))
    seeds = study.seeds if arguments.seeds is None else arguments.seeds
    places = Places(Path(arguments.out), Path(arguments.results), arguments.data)
    if arguments.tune:
        while jobs := next_tuning_jobs(
            study, variants, seeds[0], places, keep=arguments.keep, force=arguments.force
        ):  # what is to be run depends on what was found
            logger.info("study %s: %d runs of the tuning", study.name, len(jobs))
            run_jobs(open_jobs(jobs, arguments.force), arguments.jobs)
        logger.info("study %s: the tuning is over", study.name)
        return
    jobs = study_jobs(study, variants, seeds, places, arguments.keep)
    if arguments.again:
        run_again(jobs, places.out / study.name / "again", arguments.jobs)
        return
    todo = open_jobs(jobs, arguments.force)
    logger.info("study %s: %d runs, %d of them are there already", study.name, len(jobs), len(jobs) - len(todo))
    run_jobs(todo, arguments.jobs)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _demo(arguments: argparse.Namespace) -> None:
    try:
        rows = run_demo(arguments.out, DEMO)
    except TrainingInterrupted as stopped:
        raise TrainingInterrupted(
            f"stopped; continue with: python -m benchmarks.study demo --out {arguments.out}"
        ) from stopped
    print_result(format_table(rows))


FUNCTIONS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "run": run_study,
    "contents": run_contents,
    "demo": _demo,
}
