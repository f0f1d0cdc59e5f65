"""The command ``lmn study``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from lmn_model.cli.output import print_result
from benchmarks.study.jobs import Places
from benchmarks.study.plan import next_tuning_jobs, study_jobs
from benchmarks.study.report import write_report
from benchmarks.study.runner import open_jobs, run_again, run_jobs
from benchmarks.study.study_file import load_study

logger = logging.getLogger("lmn")


def run_study(arguments: argparse.Namespace) -> None:
    """Run what the study has no results of, or with ``--report`` make its tables and figures.

    Raises:
        StudyError, SettingsError: the file of the study is wrong, or results are there of other settings.
        StudyFailed, StudyStopped: as in :func:`benchmarks.study.runner.run_jobs`.
    """
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
