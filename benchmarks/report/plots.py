"""Plots of the report as SVG: the same bytes for the same files and the same matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.targets import Files, Row, find

# Okabe and Ito's palette: distinct under every common colour blindness, and by lightness in grey print.
COLOURS = {
    "lmn": "#0072B2",
    "lmn_dense": "#56B4E9",
    "torch": "#D55E00",
    "torch_sparse": "#E69F00",
    "compile": "#009E73",
    "pkm": "#CC79A7",
    "fbgemm": "#000000",
}
MARKERS = dict(zip(COLOURS, "osD^vPX", strict=True))


class Plot(NamedTuple):
    """A plot: its file, its title, the section it belongs to, and the function that draws it."""

    name: str
    title: str
    group: str
    draw: Callable[[Any], None]


def plots_of(files: Files, kind: str) -> list[Plot]:
    """The plots that the files of a kind have rows for."""
    found = []
    series = [row for letter in "NBK" for row in find(files, kind, sweep=letter) if row.get("status") == "ok"]
    if series:
        title = "layer forward + backward: time and peak memory over slots, rows and K"
        found.append(Plot(f"{kind}_scaling.svg", title, "scaling", lambda figure: _draw_scaling(figure, series)))
    times = [row for row in find(files, kind, op="layer", slots="uniform", **{"pass": "both"}) if row["status"] == "ok"]
    if times and kind != "cpu":
        title = "layer forward + backward: time by shape and type, uniform slots"
        found.append(Plot(f"{kind}_times.svg", title, "times", lambda figure: _draw_times(figure, times)))
    return found


def draw_plots(files: Files, folder: Path) -> list[Path]:
    """Draw all plots into ``folder``; their paths."""
    paths = []
    for plot in (plot for kind in ("cpu", "suite", "gpu") for plot in plots_of(files, kind)):
        import matplotlib as mpl  # only where there is something to draw: nothing else here needs it
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        folder.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context({"svg.hashsalt": plot.name, "svg.fonttype": "none", "font.size": 9}):
            figure = Figure(figsize=(10, 5.4), layout="constrained")
            FigureCanvasSVG(figure)
            plot.draw(figure)
            figure.savefig(folder / plot.name, format="svg", metadata={"Date": None})
        paths.append(folder / plot.name)
    return paths


def _draw_scaling(figure: Any, rows: Sequence[Row]) -> None:
    grid = figure.subplots(2, 3, sharex="col")
    labels = {"N": "slots M = N²", "B": "rows B", "K": "slots chosen K"}
    for column, letter in enumerate("NBK"):
        of_letter = [row for row in rows if row["sweep"] == letter and row["pass"] == "both"]
        for provider in COLOURS:
            points = sorted(
                (
                    (row["shape"][letter] ** (2 if letter == "N" else 1), row)
                    for row in of_letter
                    if row["provider"] == provider
                ),
                key=lambda point: point[0],
            )
            if not points:
                continue
            style = {"color": COLOURS[provider], "marker": MARKERS[provider], "markersize": 4, "label": provider}
            at = [point for point, _ in points]
            grid[0][column].plot(at, [row["p50_ms"] for _, row in points], **style)
            grid[1][column].plot(at, [(row["peak_bytes"] or 0) / 2**20 for _, row in points], **style)
        grid[1][column].set_xlabel(labels[letter])
    for axes, label in zip(grid[:, 0], ("ms, median", "peak MiB"), strict=True):
        axes.set_ylabel(label)
    for axes in grid.flat:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        _tidy(axes)
    _legend(figure, grid[0][0])


def _draw_times(figure: Any, rows: Sequence[Row]) -> None:
    axes = figure.subplots()
    groups = list(dict.fromkeys((row["shape"]["name"], row["dtype"]) for row in rows))
    providers = [provider for provider in COLOURS if any(row["provider"] == provider for row in rows)]
    width = 0.8 / len(providers)
    for place, provider in enumerate(providers):
        for at, group in enumerate(groups):
            for row in rows:
                if (row["shape"]["name"], row["dtype"]) == group and row["provider"] == provider:
                    spread = [[row["p50_ms"] - row["p20_ms"]], [row["p80_ms"] - row["p50_ms"]]]
                    left = at - 0.4 + (place + 0.5) * width
                    style = {"color": COLOURS[provider], "label": provider, "yerr": spread, "capsize": 1.5}
                    axes.bar(left, row["p50_ms"], width, **style)
    axes.set_xticks(range(len(groups)), [f"{name}\n{dtype}" for name, dtype in groups])
    axes.set_ylabel("ms, median with 20th and 80th percentile")
    axes.set_yscale("log")
    _tidy(axes)
    _legend(figure, axes)


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)


def _legend(figure: Any, axes: Any) -> None:
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
