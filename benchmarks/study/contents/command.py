"""The command ``contents``: a report of what the memory of a run stores, as Markdown, pictures and JSON."""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.contents.figures import PICTURES, draw_categories, draw_profiles, draw_recall, draw_usage
from benchmarks.study.contents.measures import (
    choose_categories,
    describe_categories,
    describe_recall,
    describe_usage,
    threshold_of,
)
from benchmarks.study.contents.page import page
from benchmarks.study.contents.profiles import describe_profiles
from benchmarks.study.contents.reading import Contents, read_contents
from benchmarks.study.contents.words import Words
from benchmarks.study.report_folder import open_report_folder
from lmn_model.cli.output import print_result
from lmn_model.files import replacing, write_json
from lmn_model.setting_types import SettingsError
from lmn_model.training.build import choose_device
from lmn_model.training.reporting.environment import describe_environment
from lmn_model.training.runs.folder import RunFolder

logger = logging.getLogger("lmn")

FORMAT = 1
PAGE, NUMBERS = "contents.md", "contents.json"


def run_contents(arguments: argparse.Namespace) -> None:
    """Write the report of a run and print a few of its numbers as JSON.

    Raises:
        As :func:`write_contents`.
    """
    found = write_contents(
        arguments.run_folder,
        arguments.out,
        feature=arguments.feature,
        categories=arguments.category,
        threshold=arguments.threshold,
        path=arguments.data,
        device=arguments.device,
        force=arguments.force,
    )
    logger.info("wrote %s and its pictures", Path(arguments.out) / PAGE)
    summary = {
        "out": str(arguments.out),
        "feature": found["feature"],
        "in_use": found["usage"]["in_use"],
        **found["recall"]["own"],
        "overlap": found["profiles"]["overlap"],
        "percentile_of_nearest": found["profiles"]["nearest"]["percentile"],
    }
    print_result(json.dumps(summary))


def write_contents(
    run: Path | str,
    out: Path | str,
    *,
    feature: str | None = None,
    categories: Sequence[str] | None = None,
    threshold: float | None = None,
    path: str | None = None,
    device: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write ``contents.md``, ``contents.json`` and four pictures into ``out`` and return the content of the JSON.

    Args:
        run: folder of a finished run with a factored query.
        out: folder, made if it is not there.
        feature, path, device: see :func:`benchmarks.study.contents.reading.read_contents`.
        categories: values of the feature, see :func:`benchmarks.study.contents.measures.choose_categories`.
        threshold: familiarity above which a pair counts as recalled; None for ``threshold_of``.
        force: replace files of these names in ``out``.

    Raises:
        SettingsError: ``out`` holds a report and ``force`` is False, or cannot be written, or as in ``read_contents``
            and ``choose_categories``.
        RunFolderError, DataError, CheckpointError: as in ``read_contents``.
    """
    if threshold is not None and not math.isfinite(threshold):
        raise SettingsError(f"--threshold must be a finite number, got {threshold}")
    settings = RunFolder(run).load_settings()
    target = open_report_folder(out, (PAGE, NUMBERS, *PICTURES), force)
    contents = read_contents(run, feature, path=path, device=device)
    chosen = choose_categories(contents, categories)
    limit = threshold_of(contents) if threshold is None else threshold
    profiles = describe_profiles(contents)
    percentiles = profiles.pop("percentiles")
    found: dict[str, Any] = {
        "format": FORMAT,
        "settings": settings.to_dict(),
        "environment": describe_environment(choose_device(device or settings.training.device)),
        "feature": contents.feature,
        "user": contents.user,
        "users": len(contents.users),
        "users_in_all": contents.users_in_all,
        "categories": len(contents.category_names),
        "events": int(contents.counts.sum(dtype=np.int64)),
        "events_shown": contents.shown,
        "usage": describe_usage(contents),
        "chosen": describe_categories(contents, chosen, limit),
        "recall": describe_recall(contents, limit),
        "profiles": profiles,
    }
    write_json(target / NUMBERS, found)
    write_page(found, contents, chosen, percentiles, target)
    return found


def write_page(
    found: dict[str, Any], contents: Contents, chosen: Sequence[int], percentiles: dict[str, Any], folder: Path
) -> None:
    """Draw the pictures and write the page of a report into ``folder``."""
    words, limit = Words(contents), found["recall"]["threshold"]
    draw_usage(contents, words, folder / PICTURES[0])
    draw_categories(contents, chosen, limit, words, folder / PICTURES[1])
    draw_recall(found["recall"], words, folder / PICTURES[2])
    draw_profiles(found["profiles"], percentiles, words, folder / PICTURES[3])
    with replacing(folder / PAGE) as temporary:
        temporary.write_text(page(found, words), encoding="utf-8")
