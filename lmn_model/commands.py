"""The commands of ``lmn``: prepare, train, evaluate, predict, grow, contents, demo, study; :mod:`lmn_model.cli` is the
way in.

What a user can get wrong ends in one line on stderr and exit code 2; a traceback means a defect of the program. Results
go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, get_origin

import torch

from lmn_model.checkpoint import CheckpointError
from lmn_model.contents.command import add_contents_arguments, run_contents
from lmn_model.data import DataError
from lmn_model.demo import DEMO, format_table, run_demo
from lmn_model.metrics import MetricError
from lmn_model.prediction import PredictionError, predict_pairs
from lmn_model.preparation import add_prepare_arguments, run_prepare
from lmn_model.run_evaluation import evaluate_run
from lmn_model.run_folder import RunFolder, RunFolderError
from lmn_model.run_growth import grow_run
from lmn_model.setting_types import Declared, declared_settings, describe, did_you_mean, parse
from lmn_model.settings import Settings, SettingsError
from lmn_model.study.command import add_study_arguments, run_study
from lmn_model.study.runner import StudyFailed, StudyStopped
from lmn_model.trainer import TrainingError, TrainingInterrupted
from lmn_model.training import train

USER_ERRORS = (
    CheckpointError,
    DataError,
    MetricError,
    PredictionError,
    RunFolderError,
    SettingsError,
    TrainingError,
)
EXIT_FAILED, EXIT_ERROR, EXIT_INTERRUPTED = 1, 2, 130
SET = "set:"
_ALLOCATOR = "DefaultCPUAllocator: can't allocate memory"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 if runs of a study failed, 2 for an error, 130 after Ctrl-C."""
    with _logging_to_stderr():
        try:
            parsed = _parse(sys.argv[1:] if arguments is None else arguments)
            parsed.run(parsed)
        except USER_ERRORS as error:
            return _fail(str(error))
        except torch.OutOfMemoryError as error:
            return _fail(f"out of device memory; try a smaller --batch-size ({str(error).splitlines()[0]})")
        except MemoryError as error:
            return _fail(_out_of_memory(str(error)))
        except RuntimeError as error:
            if _ALLOCATOR not in str(error):
                raise
            return _fail(_out_of_memory(str(error)))
        except OSError as error:
            return _fail(f"{error.filename or 'a file'}: {error.strerror or error}")
        except StudyFailed as failed:
            print(f"lmn: {failed}", file=sys.stderr)
            return EXIT_FAILED
        except (TrainingInterrupted, StudyStopped) as stopped:
            print(f"lmn: {stopped}", file=sys.stderr)
            return EXIT_INTERRUPTED
        except KeyboardInterrupt:
            print("lmn: interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
    return 0


def _train(arguments: argparse.Namespace) -> None:
    flags = {name.removeprefix(SET): value for name, value in vars(arguments).items() if name.startswith(SET)}
    if arguments.resume is not None:
        if flags or arguments.config is not None or arguments.out is not None or arguments.rows is not None:
            raise SettingsError("--resume takes the settings of the run; no other setting goes with it")
        folder = RunFolder(arguments.resume)
        metrics = train(folder.load_settings(), folder.root, resume=True)
    else:
        if arguments.rows is not None:
            if given := [name for name in ("dataset", "path") if name in flags]:
                raise SettingsError(f"--rows DIR is short for --dataset rows --path DIR; leave --{given[0]} out")
            flags = {**flags, "dataset": "rows", "path": arguments.rows}
        settings = Settings() if arguments.config is None else Settings.load(Path(arguments.config))
        settings = settings.override(flags)
        if settings.data.path is not None:
            # The run must find its data again from wherever it is resumed.
            settings = settings.override({"path": os.path.abspath(settings.data.path)})
        folder = RunFolder(arguments.out or Path("runs") / f"{settings.data.dataset}-{settings.model.interest}")
        metrics = train(settings, folder.root)
    results = metrics["results"]
    print(json.dumps({"run": str(folder), "best_step": results["best"]["step"], "test": results["test"]}))


def _evaluate(arguments: argparse.Namespace) -> None:
    found = evaluate_run(arguments.run_folder, arguments.split, path=arguments.path, device=arguments.device)
    print(json.dumps(found))


def _predict(arguments: argparse.Namespace) -> None:
    rows = predict_pairs(
        arguments.run_folder,
        arguments.pairs,
        arguments.out,
        path=arguments.path,
        force=arguments.force,
        device=arguments.device,
    )
    print(json.dumps({"rows": rows, "out": arguments.out}))


def _grow(arguments: argparse.Namespace) -> None:
    settings = grow_run(arguments.run_folder, arguments.out, epochs=arguments.epochs)
    print(json.dumps({"run": arguments.out, "slots": settings.model.memory.sub_keys**2}))


def _demo(arguments: argparse.Namespace) -> None:
    try:
        rows = run_demo(arguments.out, DEMO)
    except TrainingInterrupted as stopped:
        raise TrainingInterrupted(f"stopped; go on with: lmn demo --out {arguments.out}") from stopped
    print(format_table(rows))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message} (see {self.prog} --help)")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser, commands = _build_parser()
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        command = commands[parsed.command]
        flags = [flag for action in command._actions for flag in action.option_strings]
        name = unknown[0].split("=")[0]
        raise SettingsError(f"unknown argument {name!r}{did_you_mean(name, flags)} (see {command.prog} --help)")
    return parsed


def _build_parser() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(prog="lmn", description="Click models with a Large Memory Network.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    made: dict[str, _Parser] = {}

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> _Parser:
        made[name] = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        made[name].set_defaults(run=run)
        return made[name]

    add_prepare_arguments(command("prepare", run_prepare, "Write a public data set as prepared rows."))

    training = command("train", _train, "Train a model on a table of events or on prepared rows.")
    training.add_argument("--config", metavar="FILE", help="settings as TOML; flags override it")
    training.add_argument("--out", metavar="DIR", help="new run folder; runs/DATASET-INTEREST if not given")
    training.add_argument("--resume", metavar="DIR", help="go on with the run in this folder")
    training.add_argument("--rows", metavar="DIR", help="prepared rows; short for --dataset rows --path DIR")
    _add_settings(training)

    evaluate = command("evaluate", _evaluate, "Metrics of a run's best model.")
    _add_run(evaluate)
    evaluate.add_argument(
        "--split",
        choices=("valid", "test", "all"),
        help="which samples to score (default: test; all samples of another table of events)",
    )
    evaluate.add_argument(
        "--path", metavar="FILE", help="a table of other events, such as the next week's, or a folder of other rows"
    )

    predict = command("predict", _predict, "Probabilities for pairs of user and item.")
    _add_run(predict)
    predict.add_argument("--pairs", metavar="FILE", required=True, help="CSV or parquet of the pairs")
    predict.add_argument("--out", metavar="FILE", required=True, help=".csv or .parquet to write")
    predict.add_argument("--path", metavar="FILE", help="events for the histories, if others than the run's")
    predict.add_argument("--force", action="store_true", help="replace the output file")

    grow = command("grow", _grow, "Copy a run to one with four times the slots that answers the same.")
    grow.add_argument("--run", dest="run_folder", metavar="DIR", required=True, help="run folder; it is not changed")
    grow.add_argument("--out", metavar="DIR", required=True, help="new run folder; lmn train --resume goes on there")
    grow.add_argument("--epochs", type=int, metavar="VALUE", help="passes in all, if more than the run's")

    add_contents_arguments(command("contents", run_contents, "What the memory of a run stores, as a page."))

    demo = command("demo", _demo, "Train and compare four models on Complete Journey.")
    demo.add_argument("--out", metavar="DIR", default="runs/demo", help="folder of the runs (default: runs/demo)")

    add_study_arguments(command("study", run_study, "Run a grid of trainings, and make tables of the results."))
    return parser, made


def _add_run(parser: _Parser) -> None:
    parser.add_argument("--run", dest="run_folder", metavar="DIR", required=True, help="run folder")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N; the run's own if not given")


def _add_settings(parser: _Parser) -> None:
    groups: dict[str, Any] = {}
    for each in declared_settings(Settings):
        section = ".".join(each.section)
        if section not in groups:
            groups[section] = parser.add_argument_group(f"[{section}]")
        default = "" if each.default is None else f" (default: {_as_text(each.default)})"
        groups[section].add_argument(
            f"--{each.name.replace('_', '-')}",
            dest=SET + each.name,
            metavar="VALUE",
            default=argparse.SUPPRESS,
            type=_reader(each),
            help=f"{_explain(each)}{default}".replace("%", "%%"),
        )


def _explain(each: Declared) -> str:
    if get_origin(each.kind) is Literal:
        return "; ".join(text for text in (each.help, describe(each.kind)) if text)
    return each.help or describe(each.kind)


def _reader(each: Declared) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return parse(text, each.kind, "the value")
        except SettingsError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _fail(message: str) -> int:
    print(f"lmn: error: {' '.join(message.split())}", file=sys.stderr)
    return EXIT_ERROR


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
