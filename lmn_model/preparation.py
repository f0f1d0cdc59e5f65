"""The command ``lmn prepare``."""

from __future__ import annotations

import argparse
import json
import logging
import os
from dataclasses import fields

from lmn_model.data.prepare import PrepareOptions, prepare_complete_journey

logger = logging.getLogger("lmn")

HELP = {
    "train_positives": "purchases of the training part, each with one negative",
    "valid_positives": "purchases of the validation part",
    "test_positives": "purchases of the test part",
    "min_history": "events that a household must have before a purchase that is drawn",
    "seed": "seed of all draws",
}


def add_prepare_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``lmn prepare``."""
    parser.add_argument("--dataset", choices=("complete-journey",), required=True, help="what to prepare")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to write; lmn train --rows DIR reads it")
    for each in fields(PrepareOptions):
        parser.add_argument(
            f"--{each.name.replace('_', '-')}",
            type=int,
            default=each.default,
            metavar="VALUE",
            help=f"{HELP[each.name]} (default: {each.default})",
        )
    parser.add_argument("--force", action="store_true", help="replace rows that the folder holds")


def run_prepare(arguments: argparse.Namespace) -> None:
    """Write the rows, say in one line on stderr what they are, and print it as JSON.

    Raises:
        DataError, OSError: as in :func:`lmn_model.data.prepare.prepare_complete_journey`.
    """
    options = PrepareOptions(**{each.name: getattr(arguments, each.name) for each in fields(PrepareOptions)})
    made = prepare_complete_journey(arguments.out, options, force=arguments.force)
    counts = ", ".join(f"{made[name]} {name}" for name in ("users", "items", "events"))
    rows = ", ".join(f"{part} {count}" for part, count in made["rows"].items())
    logger.info("%s: %s; rows: %s; wrote %s", arguments.dataset, counts, rows, os.path.join(arguments.out, ""))
    print(json.dumps({"out": arguments.out, **made}))
