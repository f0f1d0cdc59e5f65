"""The pictures of ``python -m benchmarks.study contents``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator, PercentFormatter, StrMethodFormatter
from torch.nn.functional import adaptive_avg_pool2d

from benchmarks.study.contents.measures import QUANTILES
from benchmarks.study.contents.profiles import TOP
from benchmarks.study.contents.reading import Contents
from benchmarks.study.contents.words import Words, count_range
from benchmarks.study.drawing import GREY, legend_below, new_figure, save
from lmn_model.training.reporting.plots import COLOURS, UNREAD_COLOUR

PICTURES = ("usage.png", "categories.png", "recall.png", "profiles.png")
MAX_BLOCKS = 256
"""Blocks of slots on each axis of the map."""
MAX_NAME = 28
DASHED: dict[str, Any] = {"color": "black", "linewidth": 1, "linestyle": (0, (4, 3))}
BOXES = "box: middle half, line: 5 % to 95 %"


def draw_usage(contents: Contents, words: Words, path: Path) -> None:
    """The norms of all slots as a map, sub-keys with the largest norms first, and their distribution."""
    norms = contents.norms
    N, used = len(norms), norms[norms > 0]
    figure, (grid, histogram) = new_figure(4.6, "Norms of the slots", f"Slots in use: {len(used) / norms.size:.1%}")
    first, second = (np.argsort(-norms.sum(axis=axis), kind="stable") for axis in (1, 0))
    ordered = torch.from_numpy(norms[first][:, second])[None].double()
    blocks = adaptive_avg_pool2d(ordered, min(N, MAX_BLOCKS))[0].numpy()
    highest = float(blocks.max()) or 1.0
    lowest = max(float(np.quantile(blocks[blocks > 0], 0.02)) if blocks.any() else highest / 10, highest / 1e4)
    image = grid.imshow(
        np.ma.masked_equal(blocks, 0.0), norm=LogNorm(min(lowest, highest / 2), highest), cmap="viridis",
        interpolation="nearest", extent=(0, N, N, 0),
    )  # fmt: skip
    grid.set_facecolor(UNREAD_COLOUR)
    grid.grid(False)
    grid.set_xlabel(f"sub-keys of {words.users}")
    grid.set_ylabel("sub-keys of items")
    for axis in (grid.xaxis, grid.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    width = -(-N // MAX_BLOCKS)
    bar = figure.colorbar(
        image, ax=grid, location="bottom", shrink=0.9, format="{x:g}",
        label=f"mean norm of {width} x {width} slots" if width > 1 else "norm of a slot",
        ticks=LogLocator(subs=(1, 2, 5) if highest < 100 * lowest else (1,)),
    )  # fmt: skip
    bar.ax.minorticks_off()
    if len(used):
        low, high = float(used.min()), float(used.max())
        edges = np.geomspace(low * 0.999, max(high, low * 1.01) * 1.001, 41)
        histogram.hist(used, bins=edges, weights=np.full(len(used), 1 / norms.size), color=COLOURS[0])
        histogram.set_xscale("log")
        histogram.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
        histogram.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        histogram.minorticks_off()
    histogram.set_xlabel("norm of a slot; a bound code has 1")
    histogram.set_ylabel("share of all slots")
    histogram.yaxis.set_major_formatter(PercentFormatter(1.0))
    save(figure, path)


def draw_categories(contents: Contents, chosen: Sequence[int], threshold: float, words: Words, path: Path) -> None:
    """Familiarity of the chosen categories for users with an event and for those without."""
    figure, (axes,) = new_figure(1.5 + 0.45 * len(chosen), f"Familiarity of each {words.user}", grid="x")
    for place, column in enumerate(chosen):
        bought = contents.counts[:, column] > 0
        for chosen_users, colour, shift, label in (
            (bought, COLOURS[1], -0.17, f"{words.users} with an event"),
            (~bought, GREY, 0.17, f"{words.users} without"),
        ):
            if chosen_users.any():
                quantiles = np.quantile(contents.familiarity[chosen_users, column], QUANTILES)
                _draw_box(axes, quantiles, place + shift, colour, label)
    axes.axvline(threshold, label="recalled above", **DASHED)
    names = [words.value(contents.category_names[column]) for column in chosen]
    axes.set_yticks(range(len(chosen)), [n if len(n) <= MAX_NAME else f"{n[: MAX_NAME - 1]}…" for n in names])
    axes.set_ylim(len(chosen) - 0.4, -0.6)
    axes.set_xlabel(f"familiarity ({BOXES})")
    legend_below(figure)
    save(figure, path)


def draw_recall(recall: dict[str, Any], words: Words, path: Path) -> None:
    """Familiarity by the true number of events, and the share of pairs above the threshold."""
    figure, (boxes, shares) = new_figure(3.8, "Familiarity", "Pairs that are recalled")
    bins = recall["by_count"]
    for place, each in enumerate(bins):
        _draw_box(boxes, each["quantiles"], place, COLOURS[0], upright=True)
        share = each["above_threshold"]
        shares.annotate(f"{share:.0%}", (place, share), ha="center", va="bottom", fontsize=9)
    boxes.axhline(recall["threshold"], label="recalled above", **DASHED)
    boxes.legend(loc="upper left", frameon=False)
    boxes.set_ylabel(BOXES)
    shares.bar(range(len(bins)), [each["above_threshold"] for each in bins], color=COLOURS[0], width=0.7)
    shares.set_ylim(0, 1.08)
    shares.yaxis.set_major_formatter(PercentFormatter(1.0))
    shares.set_ylabel("share of the pairs")
    for axes in (boxes, shares):
        axes.set_xticks(range(len(bins)), [count_range(each) for each in bins], fontsize=9)
        axes.set_xlabel(f"events of the {words.user} with the {words.category}")
    save(figure, path)


def draw_profiles(profiles: dict[str, Any], percentiles: dict[str, Any], words: Words, path: Path) -> None:
    """How many of the true top categories are recalled, and how similar the nearest users by profile are."""
    titles = f"Top {TOP} by events and by familiarity", f"Similarity of the nearest {words.user}"
    figure, (overlaps, histogram) = new_figure(3.8, *titles)
    total = max(1, profiles["users"])
    for shift, key, colour, label in (
        (-0.2, "overlaps", COLOURS[0], f"the {words.user}"),
        (0.2, "overlaps_other", GREY, f"control: another {words.user}"),
    ):
        overlaps.bar(np.arange(TOP + 1) + shift, np.array(profiles[key]) / total, 0.38, color=colour, label=label)
    overlaps.set_xlabel(f"{words.categories} in both")
    for key, label, style in (
        ("all", f"of all {words.users}", {"color": COLOURS[0]}),
        ("elsewhere", "of those with another sub-key", {"color": COLOURS[1], "histtype": "step", "linewidth": 1.8}),
    ):
        if len(values := percentiles[key]):
            weights = np.full(len(values), 1 / len(values))
            histogram.hist(values, bins=np.linspace(0, 1, 21), weights=weights, label=label, **style)
    histogram.axhline(0.05, label="chance", **DASHED)
    histogram.set_xlim(0, 1)
    histogram.xaxis.set_major_formatter(PercentFormatter(1.0))
    histogram.set_xlabel(f"{words.users} that are less similar")
    for axes in (overlaps, histogram):
        axes.set_ylabel(f"share of {words.users}")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(frameon=False, fontsize=9, loc="upper right" if axes is overlaps else "upper left")
    save(figure, path)


def _draw_box(
    axes: Axes, quantiles: Any, place: float, colour: str, label: str | None = None, *, upright: bool = False
) -> None:
    """A box of the middle half, a line from 5 to 95 % and a dot at the median."""
    low, first, middle, third, high = (float(value) for value in quantiles)
    for start, end, width in ((low, high, 1.6), (first, third, 8.0)):
        span = ([place, place], [start, end]) if upright else ([start, end], [place, place])
        axes.plot(*span, color=colour, linewidth=width, solid_capstyle="butt", label=label if width > 2 else None)
    dot = (place, middle) if upright else (middle, place)
    axes.plot(*([value] for value in dot), marker="o", color="white", markersize=4, markeredgecolor=colour)
