"""Run the commands of ``python -m benchmarks.study``; each imports only what it needs, and the demo no SciPy."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from benchmarks.study.demo import DEMO, format_table, run_demo
from lmn_model.cli.output import complain, print_result
from lmn_model.training import TrainingInterrupted

logger = logging.getLogger("lmn")


EXIT_FAILED = 1


def run_study(arguments: argparse.Namespace) -> int:
    """Run what the study has no results of, or with ``--report`` make its tables and figures; 1 if runs failed.

    Raises:
        StudyError, SettingsError: the file of the study is wrong, or there are results of other settings.
        StudyStopped: as in :func:`benchmarks.study.runner.run_jobs`.
    """
    from benchmarks.study.runner import StudyFailed

    try:
        _run_study(arguments)
    except StudyFailed as failed:
        complain(f"lmn: {failed}")
        return EXIT_FAILED
    return 0


def _run_study(arguments: argparse.Namespace) -> None:
    from benchmarks.study.jobs import Places
    from benchmarks.study.plan import study_jobs
    from benchmarks.study.report import write_report
    from benchmarks.study.runner import open_jobs, run_again, run_jobs
    from benchmarks.study.study_file import load_study
    from benchmarks.study.variants import StudyError

    study = load_study(arguments.study, quick=arguments.quick)
    if arguments.report:
        for path in write_report(study, Path(arguments.results), Path(arguments.page)):
            print_result(str(path))
        return
    variants = study.default_variants() if arguments.only is None else study.select(_names(arguments.only))
    seeds = study.seeds if arguments.seeds is None else arguments.seeds
    places = Places(Path(arguments.out), Path(arguments.results), arguments.data)
    if arguments.tune and arguments.seeds is not None:
        raise StudyError("--seeds has no effect with --tune; the seeds of the tuning are those of [tune] in the file")
    if arguments.tune:
        try:
            from benchmarks.study.tuning.run import tune_study
        except ModuleNotFoundError as error:
            if error.name != "optuna":
                raise
            raise StudyError("--tune needs Optuna; install it with: pip install 'lmn-kernels[bench]'") from error
        tune_study(study, variants, places, arguments.jobs, keep=arguments.keep, force=arguments.force)
        return
    jobs = study_jobs(study, variants, seeds, places, arguments.keep)
    if arguments.again:
        run_again(jobs, places.out / study.name / "again", arguments.jobs)
        return
    todo = open_jobs(jobs, arguments.force)
    logger.info("study %s: %d runs, %d of them have a result", study.name, len(jobs), len(jobs) - len(todo))
    run_jobs(todo, arguments.jobs)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _contents(arguments: argparse.Namespace) -> None:
    from benchmarks.study.contents.command import run_contents

    run_contents(arguments)


def _neighbours(arguments: argparse.Namespace) -> None:
    from benchmarks.study.neighbours.command import run_neighbours

    run_neighbours(arguments)


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
    "contents": _contents,
    "neighbours": _neighbours,
    "demo": _demo,
}
