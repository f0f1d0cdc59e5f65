"""Draw the diagrams of the documentation: ``python docs/diagrams.py`` writes docs/diagrams/*.svg.

Text stays text in the files, so a test can compare it and a reader can search it. ``--png DIR`` writes pictures to look
at while a diagram is changed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

FOLDER = Path(__file__).parent / "diagrams"
ITEM, USER, SLOT, LOSS, INK, PALE = "#2b6cb0", "#c05621", "#276749", "#97266d", "#1a202c", "#edf2f7"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lmn",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
}
Point = tuple[float, float]


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A white figure of ``width`` x ``height`` inches whose axes are measured in tenths of an inch."""
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 10 * width), ylim=(0, 10 * height))
    axes.set_axis_off()
    return figure, axes


def box(axes: Axes, centre: Point, size: Point, text: str, colour: str = INK, fill: str = "white") -> None:
    """A rounded box with centred text."""
    corner = centre[0] - size[0] / 2, centre[1] - size[1] / 2
    axes.add_patch(
        FancyBboxPatch(
            corner, *size, boxstyle="round,pad=0,rounding_size=0.8", edgecolor=colour, facecolor=fill, linewidth=1.4
        )
    )
    label(axes, centre, text, colour)


def label(axes: Axes, place: Point, text: str, colour: str = INK, size: float = 11, align: str = "center") -> None:
    """Text at ``place``."""
    axes.text(*place, text, color=colour, fontsize=size, ha=align, va="center", linespacing=1.25)


def arrow(axes: Axes, start: Point, end: Point, colour: str = INK, dashed: bool = False, bend: float = 0.0) -> None:
    """An arrow from ``start`` to ``end``."""
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=12,
            color=colour,
            linewidth=1.4,
            linestyle="--" if dashed else "-",
            connectionstyle=f"arc3,rad={bend}",
            shrinkA=0,
            shrinkB=0,
        )
    )


def grid(
    axes: Axes, corner: Point, step: float, n: int, rows: Sequence[int], columns: Sequence[int], chosen: set[Point]
) -> None:
    """An N x N grid of slots; rows count from the top. Pairs of best sub-keys are pale, the chosen ones dark."""
    for i in range(n):
        for j in range(n):
            fill = SLOT if (i, j) in chosen else "#c6f6d5" if i in rows and j in columns else "white"
            place = corner[0] + j * step, corner[1] + (n - 1 - i) * step
            axes.add_patch(Rectangle(place, step, step, facecolor=fill, edgecolor="#a0aec0", linewidth=0.6))
    for place, best, colour, vertical in (("left", rows, ITEM, True), ("top", columns, USER, False)):
        for i in range(n):
            along = (n - 1 - i) * step if vertical else i * step
            square = (
                (corner[0] - 1.7 * step, corner[1] + along)
                if place == "left"
                else (corner[0] + along, corner[1] + (n + 0.7) * step)
            )
            axes.add_patch(
                Rectangle(
                    square, step, step, facecolor=colour if i in best else PALE, edgecolor="#a0aec0", linewidth=0.6
                )
            )


def draw_read() -> Figure:
    """One read of the memory, and the loss that writes it."""
    figure, axes = new_figure(12.6, 4.3)
    box(axes, (6.5, 30.5), (9, 5), "user")
    box(axes, (6.5, 17.5), (9, 5), "item")
    box(axes, (20.5, 24), (11, 9), "user-aware\nquery", INK, PALE)
    arrow(axes, (11, 30.5), (15, 27))
    arrow(axes, (11, 17.5), (15, 21))
    box(axes, (35, 33), (10, 4.8), "half 1", USER)
    box(axes, (35, 17.8), (10, 4.8), "half 0", ITEM)
    arrow(axes, (26, 26.5), (30, 32))
    arrow(axes, (26, 21.5), (30, 17.8))

    corner, step, n = (51.0, 7.4), 2.6, 8
    grid(axes, corner, step, n, (1, 4, 6), (2, 3, 6), {(1, 2), (4, 2), (1, 6)})
    arrow(axes, (40, 33), (50.4, 30.6), USER)
    arrow(axes, (40, 17.8), (46.2, 17.8), ITEM)
    label(axes, (61.4, 36.2), "top K of the N sub-keys of axis 1", USER)
    label(axes, (45.4, 7.6), "top K of the N\nsub-keys of axis 0", ITEM, align="right")
    label(axes, (61.4, 3.8), "the best K of the K x K pairs: K of N x N slots", SLOT)

    box(axes, (86, 17.8), (13, 9), "weighted sum\nof K values", SLOT, "#f0fff4")
    arrow(axes, (72.4, 17.8), (79.3, 17.8), SLOT)
    box(axes, (105, 17.8), (12, 9), "CTR tower", INK, PALE)
    arrow(axes, (92.7, 17.8), (98.8, 17.8), SLOT)
    label(axes, (105, 30.4), "user, item, context,\nwindow of newest events", INK, 10)
    arrow(axes, (105, 27.6), (105, 22.6))
    arrow(axes, (111.2, 17.8), (114.4, 17.8))
    label(axes, (115, 17.8), "probability", INK, align="left")
    box(axes, (86, 34.4), (17, 7.2), "memory loss\nwrites user events", LOSS, "#fff5f7")
    arrow(axes, (86, 30.6), (86, 22.6), LOSS, dashed=True)
    return figure


def draw_queries() -> Figure:
    """How each query finds slots, and what is stored there."""
    figure, axes = new_figure(12.6, 5.0)
    step, n = 2.6, 8
    label(axes, (30, 47.6), "Joint query (the paper's)", INK, 13)
    box(axes, (7.5, 33), (12, 5.6), "item\nembedding", INK)
    box(axes, (7.5, 21), (12, 5.6), "user\nembedding", INK)
    box(axes, (22, 27), (9, 8), "learned\nmap", INK, PALE)
    arrow(axes, (13.5, 33), (17.4, 29.6))
    arrow(axes, (13.5, 21), (17.4, 24.4))
    grid(axes, (40, 16), step, n, (1, 4, 6), (2, 3, 6), {(1, 2), (4, 2), (1, 6)})
    arrow(axes, (26.6, 29.4), (39.4, 39.2), USER)
    arrow(axes, (26.6, 25), (35.2, 25), ITEM)
    label(axes, (29.6, 36.2), "half 1", USER, 10)
    label(axes, (30, 23.4), "half 0", ITEM, 10)
    label(axes, (50.4, 12.2), "K slots, weighted", SLOT)
    label(axes, (30, 5.4), "both halves depend on item and user\nwrites [item ; user] embeddings", INK)

    axes.plot((64.5, 64.5), (2, 48), color="#cbd5e0", linewidth=1)
    label(axes, (94, 47.6), "Factored query (ours)", INK, 13)
    box(axes, (72, 33), (13, 5.6), "user id:\nfixed signs", USER)
    box(axes, (72, 21), (13, 5.6), "item id:\nfixed signs", ITEM)
    grid(axes, (92, 16), step, n, (4,), (3,), {(4, 3)})
    arrow(axes, (78.6, 33), (91.4, 39.2), USER)
    arrow(axes, (78.6, 21), (87.2, 21.4), ITEM)
    label(axes, (84.6, 38.6), "half 1", USER, 10)
    label(axes, (83, 19.4), "half 0", ITEM, 10)
    label(axes, (102.4, 12.2), "one slot: item row, user column", SLOT)
    label(axes, (94, 5.4), "half 0 depends on the item, half 1 on the user\nwrites item signs x user signs", INK)
    return figure


DIAGRAMS: dict[str, Callable[[], Figure]] = {"read": draw_read, "queries": draw_queries}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="folder of the SVG files")
    parser.add_argument("--png", type=Path, metavar="DIR", help="write PNG files there too")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, draw in DIAGRAMS.items():
            figure = draw()
            figure.savefig(options.out / f"{name}.svg", metadata={"Date": None, "Creator": None})
            if options.png is not None:
                options.png.mkdir(parents=True, exist_ok=True)
                figure.savefig(options.png / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
