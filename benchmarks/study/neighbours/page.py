"""The page and the picture of ``python -m benchmarks.study neighbours``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from benchmarks.study.contents.words import escaped
from benchmarks.study.drawing import GREY, legend_below, new_figure, save
from benchmarks.study.neighbours.measures import HOUSEHOLD_EDGES, NEAR, PRODUCT_EDGES
from benchmarks.study.tables import markdown_table
from lmn_model.training.reporting.plots import COLOURS

CHANCE = {"random": "chance: any other", "popularity": "chance: by number of events"}


def page(found: Mapping[str, Any]) -> str:
    """The page as Markdown, from what :func:`benchmarks.study.neighbours.command.write_neighbours` returns."""
    measures = found["measures"]
    blocks = [
        f"The run at the start of the test split: {found['products']:,} products, {found['households']:,} households "
        f"and {found['events']:,} events before it. Profiles hold ids of products and households alone. The vector of "
        "an item in the embeddings is the sum of the rows of its product, department and category: *embeddings* "
        "compares the product's row alone, *embeddings, sums of rows* the vector, which has the category in it. "
        "Households' rows are trained against these vectors, so those of the embeddings have seen categories too.",
        "![What neighbours have in common](neighbours.png)",
        f"**Products.** Share of the {NEAR} nearest products in the same category / in the same department, by the "
        f"product's number of events. Products with fewer than {PRODUCT_EDGES[0]} events are skipped, as neighbours "
        "too.",
        _table(
            measures["products"],
            "products",
            found["similarities"],
            lambda each, name: " / ".join(
                f"{100 * each['shares'][name][kind]:.1f} %" for kind in ("category", "department")
            ),
            CHANCE,
        ),
        f"**Households.** Mean cosine of a household's shares of categories, less those of the mean household, and of "
        f"the {NEAR} nearest households, by the household's number of events. Households with fewer than "
        f"{HOUSEHOLD_EDGES[0]} events are skipped. The last row takes the households with the largest cosine.",
        _table(
            measures["households"],
            "households",
            [
                name
                for name in found["similarities"]
                if all(name in each["overlaps"] for each in measures["households"])
            ],
            lambda each, name: f"{each['overlaps'][name]:.3f}",
            {"random": CHANCE["random"], "best": "largest possible"},
        ),
        "**Nearest products**, with cosines. In brackets: the department, where it is another. The data cut names off "
        "at 30 characters.",
        *(_product(each) for each in found["examples"]["products"]),
        "**Nearest households**, for three with a medium number of events. The last column names categories that both "
        "buy at least twice as often as all households do, with the smaller of the two lifts.",
        *(_household(each) for each in found["examples"]["households"]),
    ]
    return "\n\n".join(blocks) + "\n"


def draw_measures(found: Mapping[str, Any], path: Path) -> None:
    """The share in the same category and the overlap of categories, by number of events against chance."""
    titles = f"{NEAR} nearest products: same category", f"{NEAR} nearest households: overlap"
    figure, panels = new_figure(3.6, *titles)
    names = [*found["examples"]["products"][0]["nearest"], "random"]
    colours = [*COLOURS[: len(names) - 1], GREY]
    products, households = found["measures"]["products"], found["measures"]["households"]
    for axes, ranges, values, noun in (
        (panels[0], products, [[each["shares"][name]["category"] for each in products] for name in names], "product"),
        (panels[1], households, [[each["overlaps"][name] for each in households] for name in names], "household"),
    ):
        width = 0.8 / len(names)
        for place, (name, heights, colour) in enumerate(zip(names, values, colours, strict=True)):
            shift = (place - (len(names) - 1) / 2) * width
            axes.bar(np.arange(len(ranges)) + shift, heights, width, color=colour, label=CHANCE.get(name, name))
        axes.set_xticks(range(len(ranges)), [_range(each) for each in ranges])
        axes.set_xlabel(f"events of the {noun}")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panels[0].set_ylabel("share of the neighbours")
    panels[1].set_ylabel("cosine of shares of categories")
    legend_below(figure)
    save(figure, path)


def _table(ranges: Sequence[Any], noun: str, names: Sequence[str], numbers: Any, controls: Mapping[str, str]) -> str:
    header = ["", *(f"{_range(each)} events ({each[noun]:,} {noun})" for each in ranges)]
    labels = {**{name: name for name in names}, **controls}
    return markdown_table(
        header, ([label, *(numbers(each, name) for each in ranges)] for name, label in labels.items())
    )


def _range(each: Mapping[str, Any]) -> str:
    return f"{each['from']:,}+" if each["to"] is None else f"{each['from']:,}-{each['to'] - 1:,}"


def _product(each: Mapping[str, Any]) -> str:
    def name(other: Mapping[str, Any]) -> str:
        elsewhere = "" if other["department"] == each["department"] else f" [{_lower(other['department'])}]"
        return f"{_type(other)}{elsewhere} {other['cosine']:.3f}"

    title = f"{_type(each)}, {_lower(each['department'])}, {each['events']:,} events"
    rows = ([of, ", ".join(map(name, near))] for of, near in each["nearest"].items())
    return markdown_table([f"**{title}**", "nearest"], rows)


def _household(each: Mapping[str, Any]) -> str:
    header = [f"**household {each['household_id']}, {each['events']:,} events**", "nearest", "cosine",
              "cosine of categories", "both buy often"]  # fmt: skip
    rows = []
    for name, near in each["nearest"].items():
        for place, other in enumerate(near):
            common = ", ".join(f"{_lower(one['category'])} ({one['lift']:.1f}x)" for one in other["common"]) or "-"
            label = f"{other['household_id']} ({other['events']:,} events)"
            cosines = [f"{other[key]:.3f}" for key in ("cosine", "cosine_of_categories")]
            rows.append(["" if place else name, label, *cosines, common])
    return markdown_table(header, rows)


def _type(product: Mapping[str, Any]) -> str:
    return _lower(product["product_type"] or product["product_category"])


def _lower(name: str) -> str:
    return escaped(name.lower())
