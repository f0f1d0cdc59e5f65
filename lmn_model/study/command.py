"""The command ``lmn study``."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from lmn_model.study.jobs import Places
from lmn_model.study.plan import next_tuning_jobs, study_jobs
from lmn_model.study.report import write_report
from lmn_model.study.runner import open_jobs, run_again, run_jobs
from lmn_model.study.study_file import load_study

RESULTS = Path("docs/results/study")
PAGE = Path("docs/study.md")
logger = logging.getLogger("lmn")


def add_study_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lmn study``."""
    parser.add_argument("study", metavar="FILE", help="TOML file of the study")
    parser.add_argument("--only", metavar="NAME,NAME", help="variants to run; all if not given")
    parser.add_argument("--seeds", type=_seeds, metavar="0,1", help="seeds, instead of the study's")
    parser.add_argument("--quick", action="store_true", help="a rehearsal with the settings of [quick]; own results")
    parser.add_argument("--tune", action="store_true", help="search the axes of [tune] on the validation part")
    parser.add_argument("--data", metavar="DIR", help="where the data are, instead of data.path")
    parser.add_argument("--out", default="runs/study", metavar="DIR", help="scratch folder (default: runs/study)")
    parser.add_argument("--results", default=RESULTS, metavar="DIR", help=f"result files (default: {RESULTS})")
    parser.add_argument("--page", default=PAGE, metavar="FILE", help=f"page of the tables (default: {PAGE})")
    parser.add_argument("--report", action="store_true", help="run nothing: tables and figures from the result files")
    parser.add_argument("--jobs", type=_jobs, default=_cores(), metavar="N", help="runs at a time (default: cores)")
    parser.add_argument("--again", action="store_true", help="run again what has a result and compare; results stay")
    parser.add_argument("--keep", action="store_true", help="leave the run folders; checkpoints may be large")
    parser.add_argument("--force", action="store_true", help="run anew what has a result of other settings")


def run_study(arguments: argparse.Namespace) -> None:
    """Run what the study has no results of, or with ``--report`` make its tables and figures.

    Raises:
        StudyError, SettingsError: the file of the study is wrong, or results are there of other settings.
        StudyFailed, StudyStopped: as in :func:`lmn_model.study.runner.run_jobs`.
    """
    study = load_study(arguments.study, quick=arguments.quick)
    if arguments.report:
        for path in write_report(study, Path(arguments.results), Path(arguments.page)):
            print(path)
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


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(each) for each in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be whole numbers with commas between, got {text!r}") from None
    if min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise argparse.ArgumentTypeError(f"must be different numbers of at least 0, got {text!r}")
    return seeds


def _jobs(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
