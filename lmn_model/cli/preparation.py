"""The command ``lmn prepare``."""

from __future__ import annotations

import argparse
import json
import logging
import os
from dataclasses import fields

from lmn_model.cli.output import print_result
from lmn_model.data.rows.prepare import PrepareOptions, prepare_complete_journey

logger = logging.getLogger("lmn")


def run_prepare(arguments: argparse.Namespace) -> None:
    """Write the rows, say in one line on stderr what they are, and print it as JSON.

    Raises:
        DataError, OSError: as in :func:`lmn_model.data.rows.prepare.prepare_complete_journey`.
    """
    options = PrepareOptions(**{each.name: getattr(arguments, each.name) for each in fields(PrepareOptions)})
    made = prepare_complete_journey(arguments.out, options, force=arguments.force)
    counts = ", ".join(f"{made[name]} {name}" for name in ("users", "items", "events"))
    rows = ", ".join(f"{part} {count}" for part, count in made["rows"].items())
    logger.info("%s: %s; rows: %s; wrote %s", arguments.dataset, counts, rows, os.path.join(arguments.out, ""))
    print_result(json.dumps({"out": arguments.out, **made}))
