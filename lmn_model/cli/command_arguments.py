"""What each command of ``lmn`` takes, in groups with the beginner's first."""

from __future__ import annotations

import argparse
import os
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from lmn_model.setting_types import Declared, SettingsError, declared_settings, parse
from lmn_model.training.settings import Settings

SET = "set:"
"""Prefix of the destinations of settings among those of other arguments."""
BASIC = {
    "data": ("path", "dataset"),
    "columns of your table": (
        "user_col",
        "item_col",
        "time_col",
        "label_col",
        "user_features",
        "item_features",
        "context_features",
        "numeric",
        "categorical",
        "missing_numbers",
        "time_format",
    ),
    "model": ("interest", "window", "sub_keys", "hidden"),
    "training": ("epochs", "batch_size", "learning_rate", "patience", "seed", "device"),
}
"""Settings that ``lmn train --help`` shows, by group; ``--help-all`` shows the others after them."""
ADVANCED = {
    "data": "advanced: splits and samples",
    "model": "advanced: model",
    "model.memory": "advanced: memory of --interest lmn and lmn_only",
    "training": "advanced: training",
}
"""Group of all other settings, by their section."""
RESULTS = Path("docs/results/study")
PAGE = Path("docs/study.md")


class Command(NamedTuple):
    """What ``lmn`` can do.

    Attributes:
        summary: one line.
        details: the sentences after it in the command's own help.
        takes: what the command cannot do without.
        add: declares the arguments.
        example: lines of a shell.
    """

    summary: str
    details: str
    takes: str
    add: Callable[[ArgumentParser], None]
    example: str


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
    run.add_argument("--out", metavar="DIR", help="new folder for the run (default: runs/DATASET-INTEREST)")
    run.add_argument("--resume", metavar="DIR", help="continue the run in this folder with its settings")
    run.add_argument(
        "--config", metavar="FILE", help="read settings from a TOML file, such as a run's settings.toml; flags win"
    )
    for section, title in ADVANCED.items():
        group = parser.add_argument_group(title, f"in a settings file: section [{section}]")
        for each in declared.values():
            if ".".join(each.section) == section:
                _add_setting(group, each)


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
        type=_integer(1),
        metavar="INT",
        help="passes over the training split in all, those already made included; a finished run needs more "
        "(default: as in the old run)",
    )


def _add_contents(parser: ArgumentParser) -> None:
    parser.add_argument_group("arguments").add_argument(
        "run_folder", metavar="RUN", help="folder of a finished run with a factored memory (--query factored)"
    )
    group = parser.add_argument_group("options")
    group.add_argument("--out", metavar="DIR", required=True, help="folder for contents.md, contents.json and pictures")
    group.add_argument("--path", "--data", dest="data", metavar="FILE", help="the run's data, if they were moved")
    group.add_argument(
        "--feature",
        metavar="COLUMN",
        help="item feature to report on (default: the last one whose name looks like a category)",
    )
    group.add_argument(
        "--category",
        metavar="VALUE[,VALUE...]",
        action="append",
        help="values of that feature to report on (default: the most frequent)",
    )
    group.add_argument(
        "--threshold",
        type=_number,
        metavar="FLOAT",
        help="strength of the stored signal from which the report takes a pair for an event (default: the strength "
        "that 5 %% of the pairs without an event exceed)",
    )
    group.add_argument("--force", action="store_true", help="replace files of an earlier report")
    _add_device(group)


def _add_prepare(parser: ArgumentParser) -> None:
    from lmn_model.data.rows.prepare import PrepareOptions

    texts = {
        "train_positives": "purchases in the training split, each with one negative",
        "valid_positives": "purchases in the validation split",
        "test_positives": "purchases in the test split",
        "min_history": "events that a household must have before a purchase that is drawn",
        "seed": "seed of all draws",
    }
    group = parser.add_argument_group("options")
    group.add_argument("--dataset", choices=("complete-journey",), required=True, help="data set to prepare")
    group.add_argument("--out", metavar="DIR", required=True, help="folder to write; train on it with --rows DIR")
    for each in fields(PrepareOptions):
        flag = f"--{each.name.replace('_', '-')}"
        text = f"{texts[each.name]} (default: {each.default:,})"
        group.add_argument(flag, type=_integer(), default=each.default, metavar="INT", help=text)
    group.add_argument("--force", action="store_true", help="replace rows that the folder holds")


def _add_demo(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("options")
    group.add_argument("--out", metavar="DIR", default="runs/demo", help="folder of the runs (default: runs/demo)")


def _add_study(parser: ArgumentParser) -> None:
    parser.add_argument_group("arguments").add_argument("study", metavar="FILE", help="TOML file of the study")
    what = parser.add_argument_group("what to run")
    what.add_argument("--only", metavar="NAME[,NAME...]", help="variants to run (default: all)")
    what.add_argument("--seeds", type=_seeds, metavar="INT[,INT...]", help="seeds (default: those of the file)")
    what.add_argument(
        "--quick", action="store_true", help="rehearse with the settings of [quick]; has results of its own"
    )
    what.add_argument("--tune", action="store_true", help="search the settings named in [tune] by validation AUC")
    what.add_argument("--again", action="store_true", help="repeat runs as a check: compare, and keep the old results")
    what.add_argument("--force", action="store_true", help="replace results that were made with other settings")
    what.add_argument("--report", action="store_true", help="run nothing; make tables and figures of the results")
    what.add_argument(
        "--jobs", type=_integer(1), default=_cores(), metavar="INT", help="runs at a time (default: cores)"
    )
    where = parser.add_argument_group("where")
    where.add_argument(
        "--path", "--data", dest="data", metavar="DIR", help="the data, instead of data.path of the file"
    )
    where.add_argument("--out", default="runs/study", metavar="DIR", help="scratch folder (default: runs/study)")
    where.add_argument("--results", default=RESULTS, metavar="DIR", help=f"result files (default: {RESULTS})")
    where.add_argument("--page", default=PAGE, metavar="FILE", help=f"page of the tables (default: {PAGE})")
    where.add_argument("--keep", action="store_true", help="keep run folders; checkpoints can be large")


def _add_run(group: Any) -> None:
    group.add_argument("--run", dest="run_folder", metavar="DIR", required=True, help="run folder of lmn train")
    _add_device(group)


def _add_device(group: Any) -> None:
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
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _integer(low: int | None = None) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"the value must be an integer, got {text!r}") from None
        if low is not None and value < low:
            raise argparse.ArgumentTypeError(f"the value must be at least {low}, got {value}")
        return value

    return read


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"the value must be a number, got {text!r}") from None


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(each) for each in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be integers with commas between, got {text!r}") from None
    if min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise argparse.ArgumentTypeError(f"must be different numbers of at least 0, got {text!r}")
    return seeds


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    "contents": Command(
        "Report what the memory of a run stores",
        "The report sets what the memory says of users and categories beside the events themselves.",
        "RUN --out DIR",
        _add_contents,
        "  lmn contents runs/mine --out report",
    ),
    "prepare": Command(
        "Write a public data set as prepared rows",
        "Prepared rows are parquet files of samples whose ids and splits are fixed, for comparisons of models.",
        "--dataset NAME --out DIR",
        _add_prepare,
        "  lmn prepare --dataset complete-journey --out rows\n  lmn train --rows rows --out runs/rows",
    ),
    "demo": Command(
        "Train four models on a public data set and compare them",
        "It takes about ten minutes on a CPU. A demonstration that was stopped continues with the same command.",
        "",
        _add_demo,
        "  lmn demo --out runs/demo",
    ),
    "study": Command(
        "Run a grid of trainings and tabulate the results",
        "A study is a TOML file of models, seeds and settings; the folder studies of the repository has some. Runs "
        "that have a result are not repeated.",
        "FILE",
        _add_study,
        "  lmn study benchmarks/study/kuairand.toml --only DIN,LMN --seeds 0,1",
    ),
}
