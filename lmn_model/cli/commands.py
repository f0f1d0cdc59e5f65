"""What the commands of ``lmn`` do.

What a user can get wrong ends in one line on stderr and exit code 2; a traceback means a defect of the program. Results
go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from lmn_model.cli.output import print_result
from lmn_model.cli.preparation import run_prepare
from lmn_model.cli.run_settings import given_flags, settings_of
from lmn_model.training.prediction import predict_pairs
from lmn_model.training.run_evaluation import evaluate_run
from lmn_model.training.run_folder import RunFolder
from lmn_model.training.run_growth import grow_run
from lmn_model.training.settings import SettingsError
from lmn_model.training.train import train


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
        folder = RunFolder(arguments.out or Path("runs") / f"{settings.data.dataset}-{settings.model.name}")
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


FUNCTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "grow": _grow,
    "prepare": run_prepare,
}
