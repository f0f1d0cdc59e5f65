"""From the arguments of ``lmn train`` to the settings of a run, and what can be checked before torch is loaded."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from lmn_model.cli.command_arguments import SET
from lmn_model.cli.output import complain
from lmn_model.data.schema import Schema
from lmn_model.data.tables.header import TEXT_SUFFIXES, check_columns, read_header
from lmn_model.training.settings import Settings, SettingsError, read_table

DATASET_FILES = {"rows": ("train.parquet", "item_info.parquet"), "kuairand": ("impressions.parquet", "videos.parquet")}
"""Files of a folder that show what it holds."""
ANNOUNCED_BYTES = 2 * 10**7
"""A text file of this size or more is announced before it is read."""


def check_table(arguments: argparse.Namespace) -> None:
    """Check the columns of a CSV or TSV that a new run names, and announce a large file: torch takes a while to load.

    Raises:
        SettingsError: as :func:`settings_of`.
        DataError: the header cannot be read, or lacks a column.
        OSError: the file cannot be read.
    """
    if arguments.command != "train" or arguments.resume is not None:
        return
    data = settings_of(arguments).data
    path = Path(data.path or "")
    if data.dataset != "events" or not (path.name.lower().endswith(TEXT_SUFFIXES) and path.is_file()):
        return
    schema = Schema(**{name: value for name, value in data.columns().items() if value is not None})
    check_columns(read_header(path), schema.columns, str(path))
    if (size := path.stat().st_size) >= ANNOUNCED_BYTES:
        complain(f"reading {path} ({size / 1e6:.0f} MB); loading torch first")


def given_flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line names, by name."""
    return {name.removeprefix(SET): value for name, value in vars(arguments).items() if name.startswith(SET)}


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings of a new run, from its file and its flags.

    Raises:
        SettingsError: a setting is unknown, wrong or named twice, or the file cannot be read.
    """
    flags = given_flags(arguments)
    if arguments.rows is not None:
        if given := [name for name in ("dataset", "path") if name in flags]:
            raise SettingsError(f"--rows DIR is short for --dataset rows --path DIR; leave --{given[0]} out")
        flags = {**flags, "dataset": "rows", "path": arguments.rows}
    source = arguments.config
    table = {} if source is None else read_table(Path(source))
    settings = (Settings() if source is None else Settings.from_dict(table, source)).override(flags)
    if (path := settings.data.path) is None:
        return settings
    # The run must find its data again from wherever it is resumed.
    settings = settings.override({"path": os.path.abspath(path)})
    if "dataset" in flags or "dataset" in table.get("data", {}):
        return settings
    return settings.override({"dataset": _dataset_at(Path(path))})


def _dataset_at(path: Path) -> str:
    """The data set at ``path`` where none is named: events, unless the files of a folder show that it is another."""
    for name, files in DATASET_FILES.items():
        if all((path / file).is_file() for file in files):
            return name
    return "events"
