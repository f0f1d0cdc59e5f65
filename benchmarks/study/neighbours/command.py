"""The command ``neighbours``: nearest products and households of a run, as Markdown, a picture and JSON."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.neighbours.measures import (
    category_cosines,
    choose_products,
    common_categories,
    household_overlaps,
    middle_households,
    near_households,
    near_products,
    product_shares,
)
from benchmarks.study.neighbours.page import draw_measures, page
from benchmarks.study.neighbours.reading import Journey, Similarity, read_journey
from benchmarks.study.report_folder import open_report_folder
from lmn_model.cli.output import print_result
from lmn_model.files import replacing, write_json
from lmn_model.training.build import choose_device
from lmn_model.training.reporting.environment import describe_environment
from lmn_model.training.runs.folder import RunFolder

logger = logging.getLogger("lmn")

FORMAT = 1
PAGE, NUMBERS, PICTURE = "neighbours.md", "neighbours.json", "neighbours.png"


def run_neighbours(arguments: argparse.Namespace) -> None:
    """Write the report of a run and print its measures as JSON.

    Raises:
        As :func:`write_neighbours`.
    """
    found = write_neighbours(
        arguments.run_folder,
        arguments.out,
        products=arguments.product,
        path=arguments.data,
        device=arguments.device,
        force=arguments.force,
    )
    logger.info("wrote %s and its picture", Path(arguments.out) / PAGE)
    print_result(json.dumps({"out": str(arguments.out), **found["measures"]}))


def write_neighbours(
    run: Path | str,
    out: Path | str,
    *,
    products: Sequence[str] | None = None,
    path: str | None = None,
    device: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write ``neighbours.md``, ``neighbours.json`` and a picture into ``out`` and return the content of the JSON.

    Args:
        run: folder of a finished run with profiles on prepared rows of Complete Journey.
        out: folder, made if it is not there.
        products: texts, see :func:`benchmarks.study.neighbours.measures.choose_products`.
        path, device: see :func:`benchmarks.study.neighbours.reading.read_journey`.
        force: replace files of these names in ``out``.

    Raises:
        SettingsError: ``out`` holds a report and ``force`` is False, or cannot be written, or as in ``read_journey``
            and ``choose_products``.
        RunFolderError, DataError, CheckpointError: as in ``read_journey``.
    """
    settings = RunFolder(run).load_settings()
    plain = settings.to_dict()
    plain["data"].pop("path")  # a folder of this machine says nothing about the data
    target = open_report_folder(out, (PAGE, NUMBERS, PICTURE), force)
    journey = read_journey(run, path=path, device=device)
    examples = {"products": _products(journey, products), "households": _households(journey)}
    found: dict[str, Any] = {
        "format": FORMAT,
        "settings": plain,
        "environment": describe_environment(choose_device(device or settings.training.device)),
        "products": len(journey.products),
        "households": len(journey.households) - 1,
        "events": int(journey.events.sum()),
        "similarities": [each.name for each in journey.similarities],
        "examples": examples,
        "measures": {"products": product_shares(journey), "households": household_overlaps(journey)},
    }
    write_json(target / NUMBERS, found)
    draw_measures(found, target / PICTURE)
    with replacing(target / PAGE) as temporary:
        temporary.write_text(page(found), encoding="utf-8")
    return found


def _shown(journey: Journey) -> list[Similarity]:
    """Those with examples: level 1, the first that reads rows of other users, the last level, and product rows."""
    levels = dict.fromkeys((min(1, journey.levels - 1), journey.levels - 1))
    return [journey.similarities[each] for each in (*levels, *range(journey.levels, len(journey.similarities))[:1])]


def _products(journey: Journey, texts: Sequence[str] | None) -> list[dict[str, Any]]:
    def named(product: int) -> dict[str, Any]:
        row = journey.products.row(product - 1, named=True)
        names = {name: row[name] for name in ("product_id", "product_type", "product_category", "department")}
        return {**names, "events": int(journey.events[product])}

    def near(each: Similarity, product: int) -> list[dict[str, Any]]:
        found = near_products(journey, each.products, product)
        return [{**named(other), "cosine": cosine} for other, cosine in found]

    return [
        {**named(product), "nearest": {each.name: near(each, product) for each in _shown(journey)}}
        for product in choose_products(journey, texts)
    ]


def _households(journey: Journey) -> list[dict[str, Any]]:
    truth = category_cosines(journey)

    def named(household: int) -> dict[str, Any]:
        return {
            "household_id": int(journey.households[household]),
            "events": int(journey.counts[household].sum()),
        }

    def near(each: Similarity, household: int) -> list[dict[str, Any]]:
        return [
            {
                **named(other),
                "cosine": cosine,
                "cosine_of_categories": float(truth[household, other]),
                "common": [
                    {"category": name, "lift": lift} for name, lift in common_categories(journey, household, other)
                ],
            }
            for other, cosine in (near_households(journey, each.households, household) if each.households else ())
        ]

    return [
        {**named(household), "nearest": {each.name: near(each, household) for each in _shown(journey)}}
        for household in middle_households(journey)
    ]
