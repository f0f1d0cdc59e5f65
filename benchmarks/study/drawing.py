"""What all figures of a study share: their size, fonts and grid, for a page of 800 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lmn_model.files import replacing

WIDTH = 8.0
"""Inches; at this width text of 10 points is 14 pixels high on a page of 800 pixels."""
MAX_LEGEND = 70
"""Characters of a legend in one line."""
GREY = "#8C8C8C"
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E5E5E5",
    "legend.frameon": False,
}


def new_figure(height: float, *titles: str, grid: str = "y", **subplots: Any) -> tuple[Figure, Sequence[Axes]]:
    """A figure with a panel for each title.

    Args:
        height: in inches.
        *titles: of the panels.
        grid: along which axis lines are drawn.
        **subplots: for :meth:`matplotlib.figure.Figure.subplots`.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(titles), squeeze=False, **subplots)[0]
        for axes, title in zip(panels, titles, strict=True):
            axes.set_title(title)
            axes.grid(axis=grid)
    return figure, panels


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, replacing the file as a whole; raise OSError if it cannot be written."""
    with rc_context(STYLE), replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def legend_below(figure: Figure) -> None:
    """One legend for all panels, below them, with each label once."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    columns = len(handles) if len("".join(handles)) <= MAX_LEGEND else 3
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False)
