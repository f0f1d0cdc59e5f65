"""The program ``lmn``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from lmn_model.cli.command_arguments import COMMANDS
from lmn_model.cli.program import Program
from lmn_model.cli.run_settings import check_table

DESCRIPTION = (
    "Predict clicks and purchases: train a model on a table of events, measure it, and score pairs of user and item. "
    "The default model has a large memory that stores which user interacted with which item."
)
EXAMPLE = """example:
  lmn train --path purchases.csv --user-col customer --item-col sku \\
      --time-col bought_at --out runs/mine
  lmn evaluate --run runs/mine
  lmn predict --run runs/mine --pairs pairs.csv --out scores.csv

exit codes: 0 done, 2 error, 130 after Ctrl-C,
143 after SIGTERM, 141 if the reader of the output is gone"""


def _functions() -> Mapping[str, Callable[[argparse.Namespace], int | None]]:
    from lmn_model.cli.commands import FUNCTIONS

    return FUNCTIONS


ABLATIONS = "only the study has it, see benchmarks/study/ablations.py in a checkout"
MOVED = {
    "demo": "in a checkout: make demo",
    "study": "in a checkout: python -m benchmarks.study run FILE",
    "contents": "in a checkout: python -m benchmarks.study contents RUN --out DIR",
    **dict.fromkeys(("--address", "--target", "--read-out", "--keys", "--code-metric", "--loss"), ABLATIONS),
}
LMN = Program("lmn", DESCRIPTION, EXAMPLE, COMMANDS, check_table, _functions, MOVED)
