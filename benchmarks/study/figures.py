"""Pictures of a study as PNG: a metric by model with intervals, and AUC and log loss over what was varied."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, StrMethodFormatter

from benchmarks.study.statistics import Estimate, estimate
from lmn_model.files import replacing
from lmn_model.training.reporting.plots import COLOURS, MARKERS

_LINEAR = 0.01
"""Differences of AUC up to it are drawn on a linear scale, larger ones on a logarithmic."""
_TICKS = (0, _LINEAR / 2, _LINEAR, 10 * _LINEAR)


class Dot(NamedTuple):
    """A row of :func:`draw_dots`.

    Attributes:
        name: of the model.
        auc: of its test part; None if not known.
        memory: whether the model has one.
        difference: how much the AUC is above a reference's; None if not known, or for the reference itself.
    """

    name: str
    auc: Estimate | None
    memory: bool
    difference: Estimate | None = None


def draw_dots(rows: Sequence[Dot], title: str, path: Path, *, reference: str | None = None) -> None:
    """A dot a model with its 95 % interval, in the order of ``rows`` from the top.

    Args:
        rows: a model without an AUC is left out.
        title: of the figure.
        path: PNG to write, replaced as a whole.
        reference: the model that the differences are to, which get a second panel if there are any; None for none.

    Raises:
        OSError: the file cannot be written.
    """
    shown = [row for row in rows if row.auc is not None]
    if all(row.difference is None for row in shown):
        reference = None
    names = 0.075 * max((len(row.name) for row in shown), default=0)  # inches
    width = max(8.5, 5.5 + names) + (4.0 if reference else 0.0)
    figure = Figure(figsize=(width, 0.9 + 0.34 * len(shown)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2 if reference else 1, sharey=True, squeeze=False)[0]
    for place, row in enumerate(shown):
        for axes, value, form in zip(panels, (row.auc, row.difference), ("{:.4f}", "{:+.4f}"), strict=False):
            if value is not None:
                _draw_dot(axes, place, value, form.format(value.mean), memory=row.memory)
    panels[0].set_yticks(range(len(shown)), [row.name for row in shown])
    panels[0].set_ylim(len(shown) - 0.4, -0.8)
    panels[0].set_xlabel("test AUC, mean over seeds and 95 % interval")
    panels[0].set_title(title, fontsize=12, loc="left")
    if reference:
        panels[1].set_xscale("symlog", linthresh=_LINEAR, linscale=2)
        panels[1].axvline(0, color="#808080", linewidth=1)
        panels[1].set_xlabel(f"AUC less that of {reference}\npaired by seed, scale linear up to {_LINEAR:g}")
        panels[1].xaxis.set_major_locator(FixedLocator([sign * tick for tick in _TICKS for sign in (-1, 1)]))
        panels[1].xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panels[1].tick_params(axis="y", left=False)
    for axes in panels:
        axes.margins(x=0.08)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    kinds = dict(zip(labels, handles, strict=True))
    if len(kinds) > 1:
        figure.legend(kinds.values(), kinds, loc="outside lower center", ncols=2, frameon=False)
    _save(figure, path)


def _draw_dot(axes: Axes, place: int, value: Estimate, text: str, *, memory: bool) -> None:
    axes.errorbar(
        value.mean, place, xerr=value.half or 0.0, fmt=MARKERS[0] if memory else MARKERS[1],
        color=COLOURS[1] if memory else COLOURS[0], markersize=6, capsize=3,
        label="with a memory" if memory else "no memory",
    )  # fmt: skip
    axes.annotate(text, (value.mean, place), xytext=(0, 6), textcoords="offset points", fontsize=8, ha="center")


def draw_curves(rows: Sequence[tuple[str, float, Sequence[Mapping[str, Any]]]], label: str, path: Path) -> None:
    """AUC, log loss and training time over what was varied, a line a model, with 95 % intervals.

    Args:
        rows: name of the line, place on the axis and the results of its runs.
        label: of the axis, whose scale is logarithmic.
        path: PNG to write, replaced as a whole.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(12, 4.3), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    lines = list(dict.fromkeys(name for name, _, _ in rows))
    places = sorted({place for _, place, _ in rows})
    above_zero = all(place > 0 for place in places)
    powers = above_zero and all(place == 2 ** round(math.log2(place)) for place in places)
    for axes, title, of in (
        (panels[0], "Test AUC", lambda run: run["test"]["auc"]),
        (panels[1], "Test log loss", lambda run: run["test"]["log_loss"]),
        (panels[2], "Seconds of training", lambda run: run["train_seconds"] or None),
    ):
        for number, line in enumerate(lines):
            points = []
            for name, place, runs in rows:
                values = [of(run) for run in runs]
                if name == line and values and None not in values:
                    points.append((place, estimate(values)))
            points.sort(key=lambda each: each[0])
            if points:
                axes.errorbar(
                    [place for place, _ in points], [value.mean for _, value in points],
                    yerr=[value.half or 0.0 for _, value in points], label=line, color=COLOURS[number % len(COLOURS)],
                    marker=MARKERS[number % len(MARKERS)], markersize=5, capsize=3,
                )  # fmt: skip
        if above_zero:
            axes.set_xscale("log", base=2)
        axes.set_xticks(places)
        if not powers:
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.minorticks_off()
        axes.set_xlabel(label)
        axes.set_title(title, fontsize=12, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)), frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
