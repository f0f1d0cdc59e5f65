"""Figures of a study as PNG: a metric by model with intervals, and metrics over what was varied."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, StrMethodFormatter

from benchmarks.study.drawing import legend_below, new_figure, save
from benchmarks.study.statistics import Estimate, estimate
from lmn_model.training.reporting.plots import COLOURS, MARKERS

MAX_DIFFERENCE = 0.02
"""Larger differences of AUC are not drawn to scale: an arrow at the edge carries the number."""
MAX_TICKS = 6


class Dot(NamedTuple):
    """A value of :func:`draw_dots`.

    Attributes:
        label: of its row.
        auc: on the test split; None if not known.
        difference: how much the AUC is above a reference's; None if not known, or for the reference itself.
        group: heading over its row.
        series: dots of one row and group differ in it; "" is the plain model.
    """

    label: str
    auc: Estimate | None
    difference: Estimate | None = None
    group: str = ""
    series: str = ""


def draw_dots(dots: Sequence[Dot], path: Path, *, reference: str | None = None) -> None:
    """AUC of each model with its 95 % interval, in the order of ``dots`` from the top, under the names of their groups.

    Args:
        dots: one without an AUC is not drawn.
        path: PNG to write, replaced as a whole.
        reference: name of the model that the differences are to; they get a second panel, if there are any.
    """
    groups = list(dict.fromkeys(dot.group for dot in dots))
    dots = sorted((dot for dot in dots if dot.auc is not None), key=lambda dot: groups.index(dot.group))
    rows: dict[tuple[str, str], list[Dot]] = {}  # by group and label; the heading of a group has no label and no dot
    for dot in dots:
        if len(groups) > 1:
            rows.setdefault((dot.group, ""), [])
        rows.setdefault((dot.group, dot.label), []).append(dot)
    titles = ["Test AUC"]
    if reference and any(dot.difference is not None for dot in dots):
        titles.append("Difference of test AUC")
    figure, panels = new_figure(1.3 + 0.23 * len(rows), *titles, grid="x", sharey=True)
    limits = _limits([dot.difference for dot in dots if dot.difference is not None])
    series = sorted({dot.series for dot in dots})
    for place, row in enumerate(rows.values()):
        for number, dot in enumerate(row):
            shifted = place + 0.3 * (number - (len(row) - 1) / 2)
            style: dict[str, Any] = {
                "color": COLOURS[series.index(dot.series)],
                "marker": MARKERS[series.index(dot.series)],
            }
            label = f"with {dot.series}" if dot.series else f"without {series[-1]}"
            _draw_estimate(panels[0], dot.auc, shifted, label=label, **style)
            if len(panels) > 1:
                _draw_estimate(panels[1], dot.difference, shifted, limits, 36 * number, **style)
    _name_rows(panels, list(rows))
    panels[0].set_xlabel("mean over seeds, 95 % interval")
    panels[0].margins(x=0.05)
    for axes in panels[1:]:
        axes.axvline(0, color="#808080", linewidth=1)
        axes.set_xlim(limits)
        axes.set_xlabel(f"relative to {reference}\npaired by seed, 95 % interval")
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if len(series) > 1:
        legend_below(figure)
    save(figure, path)


def _draw_estimate(
    axes: Axes,
    value: Estimate | None,
    place: float,
    limits: tuple[float, float] = (-math.inf, math.inf),
    indent: float = 0.0,
    **style: Any,
) -> None:
    """A dot with its interval; beyond the limits an arrow at the edge, and the number ``indent`` points further in."""
    if value is None:
        return
    if limits[0] <= value.mean <= limits[1]:
        axes.errorbar(
            value.mean, place, xerr=value.half or 0.0, linestyle="", markersize=5, capsize=2.5, linewidth=1.2, **style
        )
        return
    is_below = value.mean < limits[0]
    edge = limits[0] if is_below else limits[1]
    axes.plot([edge], [place], "<" if is_below else ">", color=style["color"], markersize=5, clip_on=False)
    axes.annotate(
        f"{value.mean:+.3f}", (edge, round(place)), xytext=((6 + indent) * (1 if is_below else -1), 0), fontsize=8,
        textcoords="offset points", va="center", ha="left" if is_below else "right", color=style["color"],
    )  # fmt: skip


def _name_rows(panels: Sequence[Axes], rows: Sequence[tuple[str, str]]) -> None:
    """Labels of the rows, given by group and label; the heading of a group, without a label, gets a band."""
    panels[0].set_yticks(range(len(rows)), [label or group for group, label in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    for place, (text, (_, label)) in enumerate(zip(panels[0].get_yticklabels(), rows, strict=True)):
        if not label:
            text.set_fontweight("bold")
            for axes in panels:
                axes.axhspan(place - 0.5, place + 0.5, color="#F0F0F0", linewidth=0, zorder=0)
    for axes in panels:
        axes.tick_params(axis="y", length=0)


def _limits(differences: Sequence[Estimate]) -> tuple[float, float]:
    """Ends of an axis that holds zero and, with their intervals, all means of at most :data:`MAX_DIFFERENCE`."""
    near = [each for each in differences if abs(each.mean) <= MAX_DIFFERENCE] or differences
    low = min([0.0, *(each.mean - (each.half or 0.0) for each in near)])
    high = max([0.0, *(each.mean + (each.half or 0.0) for each in near)])
    margin = 0.15 * (high - low) or MAX_DIFFERENCE
    return low - margin, high + margin


def draw_curves(points: Sequence[tuple[str, float, Sequence[Mapping[str, Any]]]], axis: str, path: Path) -> None:
    """AUC, log loss and training time over what was varied, a curve for each line, with 95 % intervals.

    Args:
        points: name of the line, place on the axis and the results of its runs.
        axis: name of what was varied, on a logarithmic scale.
        path: PNG to write, replaced as a whole.
    """
    figure, panels = new_figure(3.4, "Test AUC", "Test log loss", "Training time in s")
    metrics = (
        lambda run: run["test"]["auc"],
        lambda run: run["test"]["log_loss"],
        lambda run: run["train_seconds"] or None,
    )
    lines = list(dict.fromkeys(line for line, _, _ in points))
    places = sorted({place for _, place, _ in points})
    for axes, metric in zip(panels, metrics, strict=True):
        for number, name in enumerate(lines):
            values = {place: [metric(run) for run in runs] for line, place, runs in points if line == name}
            curve = {place: estimate(each) for place, each in sorted(values.items()) if None not in each}
            if curve:
                means, halves = zip(*((each.mean, each.half or 0.0) for each in curve.values()), strict=True)
                style: dict[str, Any] = {
                    "color": COLOURS[number % len(COLOURS)],
                    "marker": MARKERS[number % len(MARKERS)],
                }
                axes.errorbar(
                    [*curve], means, yerr=halves, label=name, markersize=4, capsize=2.5, linewidth=1.2, **style
                )
        _scale(axes, axis, places)
    legend_below(figure)
    save(figure, path)


def _scale(axes: Axes, axis: str, places: Sequence[float]) -> None:
    """Ticks at the places, every second if there are many; powers of two as such."""
    is_positive = all(place > 0 for place in places)
    if is_positive:
        axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(places[:: 1 + (len(places) > MAX_TICKS)]))
    if not is_positive or any(place != 2 ** round(math.log2(place)) for place in places):
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.set_xlabel(axis)
