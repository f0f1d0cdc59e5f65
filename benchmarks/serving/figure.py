"""Picture and Markdown tables of a result file of :mod:`benchmarks.serving`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from benchmarks.report.markdown import table
from lmn_model.files import replacing
from lmn_model.training.reporting.plots import COLOURS, MARKERS

ENOUGH = 300
"""Calls under a p99; of fewer it is little else than the slowest call, and the tables mark it."""
JOINT = " (joint query)"
MATCHES = " with matches"
COLLABORATIVE = " with profiles and event embeddings"
DASHES = {JOINT: (0, (4, 2)), MATCHES: (0, (1, 1.5)), COLLABORATIVE: (0, (5, 1.5, 1, 1.5))}
"""Dashes of a variant, by the end of its name; it has the colour of the model without that end."""
SECTIONS = {"candidates": "candidates", "sizes": "slots"}
"""Sections of a result file and the x axis of their points."""
STEPS = {"candidates": 1.09, "sizes": 1.3}
"""Factor between neighbouring models at one place of the axis."""


def draw(data: dict[str, Any], path: Path) -> None:
    """Latency over candidates, log-log, and over slots, from 0; a point is p50, the line above it ends at p99.

    A variant, such as one with the joint query, has the colour of the model itself, and a dashed or dotted line.

    Raises:
        OSError: the picture cannot be written.
    """
    figure = Figure(figsize=(12, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    names = list(dict.fromkeys(point["model"] for section in SECTIONS for point in data.get(section, ())))
    families = list(dict.fromkeys(_family(name)[0] for name in names))
    handles: dict[str, Any] = {}
    for axes, (section, over) in zip((left, right), SECTIONS.items(), strict=True):
        shown = {name: [point for point in data.get(section, ()) if point["model"] == name] for name in names}
        shown = {name: points for name, points in shown.items() if points}
        for place, (name, points) in enumerate(shown.items()):
            # Shifted, since whiskers of models of one speed would lie on each other.
            shift = STEPS[section] ** (place - (len(shown) - 1) / 2)
            family, suffix = _family(name)
            handles[name] = _line(axes, points, over, shift, families.index(family), suffix)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({point[over] for point in data.get(section, ())}))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("ms a call", labelpad=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
    left.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    left.set_yscale("log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_minor_locator(NullLocator())
    left.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    right.set_ylim(bottom=0)
    left.set_xlabel("candidates of one user")
    right.set_xlabel("slots of the memory")
    counts = ", ".join(str(each) for each in sorted({point["candidates"] for point in data.get("sizes", ())}))
    for axes, title in (
        (left, "Latency, p50 and up to p99"),
        (right, f"Over memory size, {counts} candidates"),
    ):
        axes.set_title(title + (" (rehearsal)" if data.get("rehearsal") else ""), fontsize=12, loc="left")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _family(name: str) -> tuple[str, str]:
    """A model's name without the end that marks a variant, and that end, which may be empty."""
    suffix = next((each for each in DASHES if name.endswith(each)), "")
    return name.removesuffix(suffix), suffix


def _line(axes: Axes, points: list[dict[str, Any]], over: str, shift: float, family: int, suffix: str) -> Any:
    colour = COLOURS[family % len(COLOURS)]
    p50 = [point["p50_ms"] for point in points]
    above = [point["p99_ms"] - point["p50_ms"] for point in points]
    return axes.errorbar(
        [point[over] * shift for point in points], p50, yerr=[[0.0] * len(p50), above], color=colour,
        linestyle=DASHES.get(suffix, "-"), marker=MARKERS[family % len(MARKERS)],
        markerfacecolor="white" if suffix else colour, markersize=5, capsize=2.5, linewidth=1.3, elinewidth=1,
    )  # fmt: skip


def tables(data: dict[str, Any]) -> str:
    """The points of each section as a Markdown table, with the candidates a second of the largest call."""
    found = [_table(data, section, over) for section, over in SECTIONS.items() if data.get(section)]
    if any(point["calls"] < ENOUGH for section in SECTIONS for point in data.get(section, ())):
        found.append(f"\\* p99 of fewer than {ENOUGH} calls.")
    return "\n\n".join(found)


def _table(data: dict[str, Any], section: str, over: str) -> str:
    places = sorted({point[over] for point in data[section]})
    most = max(point["candidates"] for point in data[section])
    rows = []
    for name in dict.fromkeys(point["model"] for point in data[section]):
        points = {point[over]: point for point in data[section] if point["model"] == name}
        columns = [_point(points[place]) if place in points else "-" for place in places]
        rates = [point["candidates_per_s"] for point in points.values() if point["candidates"] == most]
        rate = [f"{rates[0]:,.0f}" if rates else "-"] if section == "candidates" else []
        rows.append((name, *columns, *rate))
    header = [f"p50 / p99 in ms by {over}", *(f"{place:,}" for place in places)]
    return table([*header, *([f"candidates/s at {most}"] if section == "candidates" else [])], rows)


def _point(point: dict[str, Any]) -> str:
    few = "" if point["calls"] >= ENOUGH else "*"
    return f"{point['p50_ms']:.3g} / {point['p99_ms']:.3g}{few}"
