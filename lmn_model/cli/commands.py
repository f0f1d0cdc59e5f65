"""What the commands of ``lmn`` do. :mod:`lmn_model.cli.main` is the way in, :mod:`lmn_model.cli.arguments` parses arguments.

What a user can get wrong ends in one line on stderr and exit code 2; a traceback means a defect of the program. Results
go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lmn_model import signals
from lmn_model.training.checkpoint import CheckpointError
from benchmarks.study.contents.__main__ import run_contents
from lmn_model.data import DataError
from benchmarks.study.demo import DEMO, format_table, run_demo
from lmn_model.training.metrics import MetricError
from lmn_model.cli.output import complain, fail, print_result
from lmn_model.training.prediction import PredictionError, predict_pairs
from lmn_model.cli.preparation import run_prepare
from lmn_model.training.run_evaluation import evaluate_run
from lmn_model.training.run_folder import RunFolder, RunFolderError
from lmn_model.training.run_growth import grow_run
from lmn_model.cli.run_settings import given_flags, settings_of
from lmn_model.training.settings import SettingsError
from benchmarks.study.__main__ import run_study
from benchmarks.study.runner import StudyFailed, StudyStopped
from lmn_model.training.loop import TrainingError, TrainingInterrupted
from lmn_model.training.train import train

USER_ERRORS = (
    CheckpointError,
    DataError,
    MetricError,
    PredictionError,
    RunFolderError,
    SettingsError,
    TrainingError,
)
EXIT_FAILED = 1
_ALLOCATOR = "DefaultCPUAllocator: can't allocate memory"


def run(parsed: argparse.Namespace) -> int:
    """Run a command and return the exit code: 0, 1 if runs of a study failed, 2 for an error, 128 + N after a signal.

    Args:
        parsed: from :func:`lmn_model.cli.arguments.parse_arguments`.
    """
    with _logging_to_stderr():
        try:
            RUN[parsed.command](parsed)
        except USER_ERRORS as error:
            return fail(str(error))
        except torch.OutOfMemoryError as error:
            return fail(f"out of device memory; try a smaller --batch-size ({str(error).splitlines()[0]})")
        except MemoryError as error:
            return fail(_out_of_memory(str(error)))
        except RuntimeError as error:
            if _ALLOCATOR not in str(error):
                raise
            return fail(_out_of_memory(str(error)))
        except StudyFailed as failed:
            complain(f"lmn: {failed}")
            return EXIT_FAILED
        except (TrainingInterrupted, StudyStopped) as stopped:
            complain(f"lmn: {stopped}")
            return signals.exit_code()
        except KeyboardInterrupt:
            complain(signals.exit_line())
            return signals.exit_code()
    return 0


def _train(arguments: argparse.Namespace) -> None:
    if arguments.resume is not None:
        if given_flags(arguments) or any(
            each is not None for each in (arguments.config, arguments.out, arguments.rows)
        ):
            raise SettingsError("--resume takes the settings of the run; no other setting goes with it")
        folder = RunFolder(arguments.resume)
        metrics = train(folder.load_settings(), folder.root, resume=True)
    else:
        settings = settings_of(arguments)
        folder = RunFolder(arguments.out or Path("runs") / f"{settings.data.dataset}-{settings.model.interest}")
        metrics = train(settings, folder.root)
    results = metrics["results"]
    print_result(json.dumps({"run": str(folder), "best_step": results["best"]["step"], "test": results["test"]}))


def _evaluate(arguments: argparse.Namespace) -> None:
    found = evaluate_run(arguments.run_folder, arguments.split, path=arguments.path, device=arguments.device)
    print_result(json.dumps(found))


def _predict(arguments: argparse.Namespace) -> None:
    rows = predict_pairs(
        arguments.run_folder,
        arguments.pairs,
        arguments.out,
        path=arguments.path,
        force=arguments.force,
        device=arguments.device,
    )
    print_result(json.dumps({"rows": rows, "out": arguments.out}))


def _grow(arguments: argparse.Namespace) -> None:
    settings = grow_run(arguments.run_folder, arguments.out, epochs=arguments.epochs)
    print_result(json.dumps({"run": arguments.out, "slots": settings.model.memory.sub_keys**2}))


def _demo(arguments: argparse.Namespace) -> None:
    try:
        rows = run_demo(arguments.out, DEMO)
    except TrainingInterrupted as stopped:
        raise TrainingInterrupted(f"stopped; go on with: lmn demo --out {arguments.out}") from stopped
    print_result(format_table(rows))


def _out_of_memory(reason: str) -> str:
    detail = f" ({reason.splitlines()[0]})" if reason else ""
    return f"out of memory; try a smaller --batch-size, --window or memory{detail}"


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    logger = logging.getLogger("lmn")
    level = logger.level
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


RUN: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "grow": _grow,
    "contents": run_contents,
    "prepare": run_prepare,
    "demo": _demo,
    "study": run_study,
}
