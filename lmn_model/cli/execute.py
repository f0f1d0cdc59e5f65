"""Run a parsed command: its log goes to stderr, and what a user can get wrong ends in one line and exit code 2.

A traceback means a defect of the program.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from lmn_model import signals
from lmn_model.cli.output import complain, fail
from lmn_model.data import DataError
from lmn_model.training import (
    CheckpointError,
    MetricError,
    PredictionError,
    RunFolderError,
    SettingsError,
    TrainingError,
    TrainingInterrupted,
)

USER_ERRORS = (
    CheckpointError,
    DataError,
    MetricError,
    PredictionError,
    RunFolderError,
    SettingsError,
    TrainingError,
)
_ALLOCATOR = "DefaultCPUAllocator: can't allocate memory"


def run(parsed: argparse.Namespace, functions: Mapping[str, Callable[[argparse.Namespace], int | None]]) -> int:
    """Run a command and return the exit code: that of the function, 2 for an error, 128 + N after a signal.

    Args:
        parsed: from :func:`lmn_model.cli.arguments.parse_arguments`.
        functions: by the name of the command.
    """
    with _logging_to_stderr():
        try:
            return functions[parsed.command](parsed) or 0
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
        except TrainingInterrupted as stopped:
            complain(f"lmn: {stopped}")
            return signals.exit_code()
        except KeyboardInterrupt:
            complain(signals.exit_line())
            return signals.exit_code()


def _out_of_memory(reason: str) -> str:
    detail = f" ({reason.splitlines()[0]})" if reason else ""
    return f"out of memory; try a smaller --batch-size, --window-size or memory{detail}"


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
