"""The commands of ``lmn``: each calls the Python API and prints its result as a line of JSON."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from lmn_model.cli.output import print_result
from lmn_model.cli.run_settings import given_flags, settings_of
from lmn_model.data.rows.prepare import PrepareOptions, prepare_rows
from lmn_model.data.rows.public import PUBLIC
from lmn_model.training import SettingsError, evaluate_run, grow_run, predict_pairs, train
from lmn_model.training.runs.folder import RunFolder

logger = logging.getLogger("lmn")


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
    tests = {name: results[name] for name in ("test", "test_while_writing") if name in results}
    print_result(json.dumps({"run": str(folder), "best_step": results["best"]["step"], **tests}))


def _evaluate(arguments: argparse.Namespace) -> None:
    found = evaluate_run(
        arguments.run_folder,
        arguments.split,
        path=arguments.path,
        device=arguments.device,
        keep_writing=arguments.keep_writing,
    )
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


def _prepare(arguments: argparse.Namespace) -> None:
    options = PrepareOptions(**{each.name: getattr(arguments, each.name) for each in fields(PrepareOptions)})
    made = prepare_rows(arguments.dataset, arguments.out, options, force=arguments.force)
    counts = ", ".join(f"{made[name]} {name}" for name in ("users", "items", "events"))
    rows = ", ".join(f"{split} {count}" for split, count in made["rows"].items())
    logger.info("%s: %s", arguments.dataset, PUBLIC[arguments.dataset].about)
    logger.info("%s: %s; rows: %s; wrote %s", arguments.dataset, counts, rows, os.path.join(arguments.out, ""))
    print_result(json.dumps({"out": arguments.out, **made}))


FUNCTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "grow": _grow,
    "prepare": _prepare,
}
