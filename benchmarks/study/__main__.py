"""The program ``python -m benchmarks.study``: grids of training runs, the demo, and reports of what a memory stores."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence

from benchmarks.study.arguments import COMMANDS
from lmn_model.cli.main import run_program
from lmn_model.cli.program import Program

DESCRIPTION = "The study behind docs/study.md: runs of many models and seeds, tuned, compared and tabulated."
EXAMPLE = """example:
  python -m benchmarks.study run benchmarks/study/complete_journey.toml \\
      --only DIN --seeds 0

exit codes: 0 done, 1 runs of a study failed, 2 error, 130 after Ctrl-C,
143 after SIGTERM, 141 if the reader of the output is gone"""


def _functions() -> Mapping[str, Callable[[argparse.Namespace], int | None]]:
    from benchmarks.study.commands import FUNCTIONS

    return FUNCTIONS


def _check(parsed: argparse.Namespace) -> None:
    """Nothing: study files are checked when they are read."""


STUDY = Program("python -m benchmarks.study", DESCRIPTION, EXAMPLE, COMMANDS, _check, _functions)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of the study; see :func:`lmn_model.cli.main.run_program`."""
    return run_program("benchmarks.study.__main__:STUDY", arguments)


if __name__ == "__main__":
    sys.exit(main())
