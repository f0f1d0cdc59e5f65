"""What each command of ``lmn`` takes, in groups with the beginner's first."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from lmn_model.cli.program import Command
from lmn_model.setting_types import Declared, SettingsError, declared_settings, parse
from lmn_model.training.settings import COLUMN_SETTINGS, Settings

SET = "set:"
"""Prefix of the destinations of settings among those of other arguments."""
BASIC = {
    "data": ("path", "dataset"),
    "columns of your table": (
        *COLUMN_SETTINGS,
        "missing_numbers",
    ),
    "model": ("window", "window_size", "memory", "sub_keys", "profile_levels", "event_dim", "hidden"),
    "training": ("epochs", "batch_size", "learning_rate", "patience", "seed", "device"),
}
"""Settings that ``lmn train --help`` shows, by group; ``--help-all`` shows the others after them."""
ADVANCED = {
    "data": "advanced: splits and samples",
    "model": "advanced: model",
    "model.memory": "advanced: memory",
    "model.collaborative": "advanced: profiles and embeddings of events",
    "training": "advanced: training",
}
"""Group of all other settings, by their section."""


def _add_train(parser: ArgumentParser) -> None:
    declared = {each.name: each for each in declared_settings(Settings)}
    for title, names in BASIC.items():
        group = parser.add_argument_group(title)
        for name in names:
            _add_setting(group, declared.pop(name))
        if title == "data":
            group.add_argument(
                "--rows", metavar="DIR", help="a folder of prepared rows; short for --dataset rows --path DIR"
            )
    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="DIR", help="new folder for the run (default: runs/DATASET-WINDOW-MEMORY)")
    run.add_argument("--resume", metavar="DIR", help="continue the run in this folder with its settings")
    run.add_argument(
        "--config", metavar="FILE", help="read settings from a TOML file, such as a run's settings.toml; flags win"
    )
    for section, title in ADVANCED.items():
        group = parser.add_argument_group(title, f"in a settings file: section [{section}]")
        for each in declared.values():
            if ".".join(each.section) == section:
                _add_setting(group, each)
    for name in ("interest", "query"):  # of earlier releases
        parser.add_argument(f"--{name}", dest=SET + name, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _add_evaluate(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("options")
    _add_run(group)
    group.add_argument(
        "--split",
        choices=("valid", "test", "all"),
        help="validation split, test split, or with --path of a table all rows (default: test; with such a path all)",
    )
    group.add_argument(
        "--path",
        metavar="FILE",
        help="evaluate on this table instead of the run's, such as the events of the next week (for a run on prepared "
        "rows: a folder of rows)",
    )
    group.add_argument(
        "--keep-writing",
        action="store_true",
        help="keep writing events to the memory during the test split, those of each step after it was scored, as a "
        "service would; for the run's own test split, without --path",
    )


def _add_predict(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("options")
    _add_run(group)
    group.add_argument(
        "--pairs",
        metavar="FILE",
        required=True,
        help="CSV or parquet with a row for each pair: the user and item columns of the run's table, its context "
        "features, the time if you have it (only events before it are then used), and, for new users and items, their "
        "features",
    )
    group.add_argument(
        "--out",
        metavar="FILE",
        required=True,
        help=".csv, .tsv or .parquet to write: the pairs, unchanged, and a column probability",
    )
    group.add_argument("--path", metavar="FILE", help="table with the users' events so far (default: the run's)")
    group.add_argument("--force", action="store_true", help="replace the output file")


def _add_grow(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("options")
    group.add_argument("--run", dest="run_folder", metavar="DIR", required=True, help="run folder; it is not changed")
    group.add_argument(
        "--out", metavar="DIR", required=True, help="new run folder; continue there with lmn train --resume DIR"
    )
    group.add_argument(
        "--epochs",
        type=integer(1),
        metavar="INT",
        help="passes over the training split in all, those already made included; a finished run needs more "
        "(default: as in the old run)",
    )


def _add_prepare(parser: ArgumentParser) -> None:
    from lmn_model.data.rows.prepare import PrepareOptions
    from lmn_model.data.rows.public import PUBLIC

    texts = {
        "train_positives": "purchases in the training split, each with one negative",
        "valid_positives": "purchases in the validation split",
        "test_positives": "purchases in the test split",
        "min_history": "events that a user must have before a purchase that is drawn",
        "seed": "seed of all draws",
    }
    group = parser.add_argument_group("options")
    group.add_argument("--dataset", choices=tuple(PUBLIC), required=True, help="data set to prepare")
    group.add_argument("--out", metavar="DIR", required=True, help="folder to write; train on it with --rows DIR")
    for each in fields(PrepareOptions):
        flag = f"--{each.name.replace('_', '-')}"
        text = f"{texts[each.name]} (default: {each.default:,})"
        group.add_argument(flag, type=integer(), default=each.default, metavar="INT", help=text)
    group.add_argument("--force", action="store_true", help="replace rows that the folder holds")


def _add_run(group: Any) -> None:
    group.add_argument("--run", dest="run_folder", metavar="DIR", required=True, help="run folder of lmn train")
    add_device(group)


def add_device(group: Any) -> None:
    group.add_argument("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N (default: as in training)")


def _add_setting(group: Any, each: Declared) -> None:
    shown = each.default is None or "(default: " in each.help
    default = "" if shown else f" (default: {_as_text(each.default)})"
    flag_alone: dict[str, Any] = {"nargs": "?", "const": True} if each.kind is bool else {}
    group.add_argument(
        each.flag,
        dest=SET + each.name,
        metavar=each.metavar,
        default=argparse.SUPPRESS,
        type=_reader(each),
        help=f"{each.help}{default}".replace("%", "%%"),
        **flag_alone,
    )


def _reader(each: Declared) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return parse(text, each.kind, "the value")
        except SettingsError as error:
            hint = f"; did you mean --window-size {text}?" if each.name == "window" and text.isdigit() else ""
            raise argparse.ArgumentTypeError(f"{error}{hint}") from error

    return read


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def integer(low: int | None = None) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"the value must be an integer, got {text!r}") from None
        if low is not None and value < low:
            raise argparse.ArgumentTypeError(f"the value must be at least {low}, got {value}")
        return value

    return read


COMMANDS = {
    "train": Command(
        "Train a model on your table of events, or on prepared rows",
        "A row of the table is an event: a user, an item and a time. The samples are split by time into training, "
        "validation and test split. The run folder then holds the best model, metrics.json, train.log and "
        "settings.toml. Once training has begun, Ctrl-C saves the run, and --resume continues it.",
        "",
        _add_train,
        "  lmn train --path purchases.csv --user-col customer --item-col sku \\\n"
        "      --time-col bought_at --item-features brand,category --out runs/mine",
    ),
    "evaluate": Command(
        "Measure a trained model: AUC, AUC per user (GAUC) and log loss",
        "The result is a line of JSON.",
        "--run DIR",
        _add_evaluate,
        "  lmn evaluate --run runs/mine --split valid",
    ),
    "predict": Command(
        "Predict a probability for pairs of user and item",
        "It is the probability of a click or purchase, or of whatever label 1 means in your table.",
        "--run DIR --pairs FILE --out FILE",
        _add_predict,
        "  lmn predict --run runs/mine --pairs pairs.csv --out scores.csv",
    ),
    "grow": Command(
        "Copy a run to one with four times the memory",
        "The predictions stay the same. Use it when the memory has become too small, and train on in the new folder.",
        "--run DIR --out DIR",
        _add_grow,
        "  lmn grow --run runs/mine --out runs/larger --epochs 4\n  lmn train --resume runs/larger",
    ),
    "prepare": Command(
        "Write a public data set as prepared rows",
        "Prepared rows are parquet files of samples whose ids and splits are fixed, for comparisons of models.",
        "--dataset NAME --out DIR",
        _add_prepare,
        "  lmn prepare --dataset complete-journey --out rows\n  lmn train --rows rows --out runs/rows",
    ),
}
