"""What each command of ``python -m benchmarks.study`` takes."""

from __future__ import annotations

import argparse
import os
from argparse import ArgumentParser
from pathlib import Path

from lmn_model.cli.command_arguments import add_device, integer
from lmn_model.cli.program import Command

RESULTS = Path("docs/results/study")
PAGE = Path("docs/study.md")


def _add_study(parser: ArgumentParser) -> None:
    parser.add_argument_group("arguments").add_argument("study", metavar="FILE", help="TOML file of the study")
    what = parser.add_argument_group("what to run")
    what.add_argument("--only", metavar="NAME[,NAME...]", help="variants to run (default: all)")
    what.add_argument(
        "--seeds", type=_seeds, metavar="INT[,INT...]", help="seeds (default: those of the file); not with --tune"
    )
    what.add_argument(
        "--quick",
        action="store_true",
        help="rehearse with the settings of [quick]; the results go to a separate folder",
    )
    what.add_argument(
        "--tune",
        action="store_true",
        help="search the axes of [tune], all at once, for the settings with the best mean validation AUC over its "
        "seeds. Every model has the same number of trials; the first is its own settings. A tuning that was stopped "
        "continues with the same command. Later runs use what was found",
    )
    what.add_argument("--again", action="store_true", help="repeat runs as a check: compare, and keep the old results")
    what.add_argument(
        "--force",
        action="store_true",
        help="replace results that were made with other settings, and repeat runs of the tuning that failed",
    )
    what.add_argument("--report", action="store_true", help="run nothing; make tables and figures of the results")
    what.add_argument(
        "--jobs",
        type=integer(0),
        default=_cores(),
        metavar="INT",
        help="runs at a time, each in a process; 0 runs them in this process, for a debugger (default: cores)",
    )
    where = parser.add_argument_group("where")
    where.add_argument(
        "--path", "--data", dest="data", metavar="DIR", help="the data, instead of data.path of the file"
    )
    where.add_argument("--out", default="runs/study", metavar="DIR", help="scratch folder (default: runs/study)")
    where.add_argument("--results", default=RESULTS, metavar="DIR", help=f"result files (default: {RESULTS})")
    where.add_argument("--page", default=PAGE, metavar="FILE", help=f"page of the tables (default: {PAGE})")
    where.add_argument("--keep", action="store_true", help="keep run folders; checkpoints can be large")


def _add_contents(parser: ArgumentParser) -> None:
    parser.add_argument_group("arguments").add_argument(
        "run_folder", metavar="RUN", help="folder of a finished run with a factored memory (--memory factored)"
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
        help="familiarity from which a pair counts as recalled (default: that which 5 %% of the pairs without an event "
        "exceed)",
    )
    group.add_argument("--force", action="store_true", help="replace files of an earlier report")
    add_device(group)


def _add_neighbours(parser: ArgumentParser) -> None:
    parser.add_argument_group("arguments").add_argument(
        "run_folder",
        metavar="RUN",
        help="folder of a finished run with profiles (--profile-levels 5) on rows of lmn prepare --dataset "
        "complete-journey",
    )
    group = parser.add_argument_group("options")
    group.add_argument(
        "--out", metavar="DIR", required=True, help="folder for neighbours.md, neighbours.json and neighbours.png"
    )
    group.add_argument("--path", "--data", dest="data", metavar="DIR", help="the run's rows, if they were moved")
    group.add_argument(
        "--product",
        metavar="TEXT",
        nargs="+",
        help="report on the most bought product with this in its type or category (default: of eight departments)",
    )
    group.add_argument("--force", action="store_true", help="replace files of an earlier report")
    add_device(group)


def _add_demo(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("options")
    group.add_argument("--out", metavar="DIR", default="runs/demo", help="folder of the runs (default: runs/demo)")


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
    "run": Command(
        "Run a grid of trainings and tabulate the results",
        "A study is a TOML file of models, seeds and settings; benchmarks/study has six. Runs "
        "that have a result are not repeated.",
        "FILE",
        _add_study,
        "  python -m benchmarks.study run benchmarks/study/kuairand.toml \\\n      --only DIN,LMN --seeds 0,1",
    ),
    "contents": Command(
        "Report what the memory of a run stores",
        "The report compares what the memory stores of users and categories with the events themselves.",
        "RUN --out DIR",
        _add_contents,
        "  python -m benchmarks.study contents runs/mine --out report",
    ),
    "neighbours": Command(
        "Name the nearest products and households of a run with profiles",
        "The report also measures what neighbours have in common, against chance.",
        "RUN --out DIR",
        _add_neighbours,
        "  python -m benchmarks.study neighbours runs/mine --out report",
    ),
    "demo": Command(
        "Train four models on a public data set and compare them",
        "It takes about ten minutes on a CPU. A demo that was stopped continues with the same command.",
        "",
        _add_demo,
        "  python -m benchmarks.study demo --out runs/demo",
    ),
}
