"""The pictures of ``python -m benchmarks.study contents``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, PercentFormatter, StrMethodFormatter
from torch.nn.functional import adaptive_avg_pool2d

from benchmarks.study.contents.measures import TOP
from benchmarks.study.contents.reading import Contents
from benchmarks.study.contents.words import Words, count_range, percent, short, thousands
from lmn_model.files import replacing
from lmn_model.training.reporting.plots import COLOURS

PICTURES = ("usage.png", "categories.png", "recall.png", "profiles.png")
MOST_BLOCKS = 256
"""Blocks of cells on each axis of the map."""
GREY = "#8C8C8C"


def draw_usage(contents: Contents, usage: dict[str, Any], words: Words, path: Path) -> None:
    """The lengths of all cells as a map, sub-keys from the fullest, and how they are distributed.

    Raises:
        OSError: the file cannot be written.
    """
    figure, (grid, bars) = _panels(11.5, 5.6, "How full the cells are", "Cells in use by length")
    lengths = contents.lengths
    N = len(lengths)
    first, second = (np.argsort(-lengths.sum(axis=axis), kind="stable") for axis in (1, 0))
    ordered = torch.from_numpy(lengths[first][:, second])[None].double()
    blocks = adaptive_avg_pool2d(ordered, min(N, MOST_BLOCKS))[0].numpy()
    used = lengths[lengths > 0]
    highest = float(blocks.max()) or 1.0
    lowest = max(float(np.quantile(blocks[blocks > 0], 0.02)) if blocks.any() else highest / 10, highest / 1e4)
    image = grid.imshow(
        np.ma.masked_equal(blocks, 0.0), norm=LogNorm(min(lowest, highest / 2), highest), cmap="viridis",
        interpolation="nearest", extent=(0, N, N, 0),
    )  # fmt: skip
    grid.set_facecolor("#EDEDED")
    grid.grid(False)
    side = -(-N // MOST_BLOCKS)
    what = f"mean length of {side} x {side} cells, empty ones 0" if side > 1 else "length of a cell"
    # Below the map and as wide: between the panels it would pass for the other's.
    bar = figure.colorbar(
        image, cax=grid.inset_axes((0.0, -0.22, 1.0, 0.04)), orientation="horizontal", label=f"{what}, log scale",
        ticks=LogLocator(subs=(1, 2, 5) if highest < 100 * lowest else (1,)), format="{x:g}",
    )  # fmt: skip
    bar.ax.minorticks_off()
    grid.set_xlabel(f"sub-keys of {words.users}, fullest first")
    grid.set_ylabel("sub-keys of items, fullest first")
    grid.tick_params(length=0)
    for axis in (grid.xaxis, grid.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if len(used):
        low, high = float(used.min()), float(used.max())
        edges = np.geomspace(low * 0.999, max(high, low * 1.01) * 1.001, 41)
        bars.hist(used, bins=edges, weights=np.full(len(used), 1 / lengths.size), color=COLOURS[0])
        bars.set_xscale("log")
        bars.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
        bars.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        bars.minorticks_off()
    bars.set_xlabel("length of a cell, 1 is one pair kept whole")
    bars.set_ylabel("share of all cells")
    bars.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    shares = f"{percent(usage['in_use'])} in use, {percent(1 - usage['in_use'])} empty"
    bars.set_title(f"Cells in use by length: {shares}", fontsize=12, loc="left")  # within, bars would cover it
    _save(figure, path)


def draw_categories(contents: Contents, chosen: Sequence[int], threshold: float, words: Words, path: Path) -> None:
    """What the memory says of the chosen categories, of users with an event and of those without.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(9.5, 1.5 + 0.55 * len(chosen)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, column in enumerate(chosen):
        truly = contents.counts[:, column] > 0
        for of, colour, shift, label in (
            (truly, COLOURS[1], -0.17, f"{words.users} who {words.bought} it"),
            (~truly, GREY, 0.17, f"{words.users} who did not"),
        ):
            if of.any():
                _box(axes, np.quantile(contents.projections[of, column], (0.05, 0.25, 0.5, 0.75, 0.95)), place + shift,
                     colour, label)  # fmt: skip
    axes.axvline(threshold, color="black", linewidth=1, linestyle=(0, (4, 3)), label="above: recalled")
    axes.set_yticks(range(len(chosen)), [short(words.value(contents.category_names[column])) for column in chosen])
    axes.set_ylim(len(chosen) - 0.4, -0.6)
    axes.set_xlabel("projection: middle half thick, 5 % to 95 % thin, median white")
    axes.set_title(f"What the memory says of each {words.user}", fontsize=12, loc="left")
    _plain(axes, "x")
    handles, labels = axes.get_legend_handles_labels()
    kept = dict(zip(labels, handles, strict=True))
    figure.legend(kept.values(), kept.keys(), loc="outside lower center", ncols=3, frameon=False)
    _save(figure, path)


def draw_recall(recall: dict[str, Any], words: Words, path: Path) -> None:
    """Projections by the true number of events, and the share above the threshold.

    Raises:
        OSError: the file cannot be written.
    """
    figure, (boxes, shares) = _panels(11.5, 4.4, "Projection by the true number of events", "Pairs that are recalled")
    bins = recall["by_count"]
    for place, each in enumerate(bins):
        _box(boxes, each["quantiles"], place, COLOURS[0], None, upright=True)
    boxes.axhline(recall["threshold"], color="black", linewidth=1, linestyle=(0, (4, 3)))
    boxes.annotate(
        "above: recalled", (1.0, recall["threshold"]), xycoords=("axes fraction", "data"), ha="right", va="bottom",
        fontsize=9, xytext=(0, 2), textcoords="offset points",
    )  # fmt: skip
    boxes.set_ylabel("projection: middle half thick, 5 % to 95 % thin")
    shares.bar(range(len(bins)), [each["above_threshold"] for each in bins], color=COLOURS[0], width=0.7)
    for place, each in enumerate(bins):
        shares.annotate(
            percent(each["above_threshold"]), (place, each["above_threshold"]), ha="center", va="bottom", fontsize=9
        )
    shares.set_ylim(0, 1.08)
    shares.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    shares.set_ylabel("share of the pairs")
    for axes in (boxes, shares):
        axes.set_xticks(range(len(bins)), [f"{count_range(each)}\n{thousands(each['pairs'])}" for each in bins])
        axes.set_xlabel(f"times {words.chosen} (below: number of pairs)")
    _save(figure, path)


def draw_profiles(profiles: dict[str, Any], percentiles: Any, words: Words, path: Path) -> None:
    """How many of the true top categories are recalled, and how alike the nearest by memory truly are.

    Raises:
        OSError: the file cannot be written.
    """
    figure, (bars, curve) = _panels(
        11.5, 4.4, f"Of the true top {TOP}, recalled as top {TOP}", f"How alike the nearest {words.user} truly is"
    )
    total = max(1, profiles["users"])
    for shift, key, colour, label in (
        (-0.2, "overlaps", COLOURS[0], "by the memory"),
        (0.2, "overlaps_other", GREY, f"control: another {words.user}'s"),
    ):
        bars.bar(np.arange(TOP + 1) + shift, np.array(profiles[key]) / total, 0.38, color=colour, label=label)
    bars.set_xlabel(f"{words.categories} that agree")
    bars.set_ylabel(f"share of {words.users}")
    bars.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    bars.legend(frameon=False)
    for key, label, style in (
        ("all", f"nearest of all {words.users}", {"color": COLOURS[0]}),
        ("elsewhere", "nearest outside the own cells", {"color": COLOURS[1], "histtype": "step", "linewidth": 1.8}),
    ):
        values = percentiles[key]
        if len(values):
            weights = np.full(len(values), 1 / len(values))
            curve.hist(values, bins=np.linspace(0, 1, 21), weights=weights, label=label, **style)
    curve.axhline(0.05, color="black", linewidth=1, linestyle=(0, (4, 3)), label="chance")
    curve.set_xlim(0, 1)
    curve.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    curve.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    curve.set_xlabel(f"{words.users} that are truly less alike than the nearest by memory")
    curve.set_ylabel(f"share of {words.users}")
    curve.legend(frameon=False, loc="upper left")
    _save(figure, path)


def _box(
    axes: Axes, quantiles: Sequence[float] | Any, place: float, colour: str, label: str | None, upright: bool = False
) -> None:
    low, first, middle, third, high = (float(value) for value in quantiles)
    for start, end, width in ((low, high, 1.6), (first, third, 8.0)):
        span = ([place, place], [start, end]) if upright else ([start, end], [place, place])
        axes.plot(*span, color=colour, linewidth=width, solid_capstyle="butt", label=label if width > 2 else None)
    dot = (place, middle) if upright else (middle, place)
    axes.plot(*([value] for value in dot), marker="o", color="white", markersize=4, markeredgecolor=colour)


def _panels(width: float, height: float, *titles: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(titles))
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=12, loc="left")
        _plain(axes, "y")
    return figure, panels


def _plain(axes: Axes, along: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=along, color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
