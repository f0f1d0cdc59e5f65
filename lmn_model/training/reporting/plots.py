"""Pictures of runs as PNG files: learning curves, of one run or of several side by side, and the use of a memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from lmn_model.ctr import CTRModel
from lmn_model.files import replacing
from lmn_model.modules.factored_memory import FactoredMemoryNetwork
from lmn_model.modules.usage import MemoryUsage

# Okabe and Ito's palette: distinct with every common colour blindness, and by lightness in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "D", "^", "v", "P")
TRAIN_COLOUR = "#8C8C8C"
UNREAD_COLOUR = "#EDEDED"
MAX_BLOCKS = 128
"""Blocks of slots on each axis of the map of a memory; finer ones would blur on a screen."""


def plot_learning_curves(results: Mapping[str, Any], path: Path) -> None:
    """Loss and AUC of one run over its steps: training rows before they are learnt from, and validation.

    One evaluation is no curve: it is drawn as a point with its value beside it.

    Args:
        results: ``["results"]`` of ``metrics.json``.
        path: PNG to write, replaced as a whole.

    Raises:
        OSError: the file cannot be written.
    """
    figure, (loss, score) = _panels("Log loss", "AUC")
    evaluations, curve = results["evaluations"], results["curve"]
    label = "validation, evaluated once" if len(evaluations) == 1 else "validation"
    for axes, train_key, valid_key in ((loss, "loss", "log_loss"), (score, "auc", "auc")):
        train = [point for point in curve if point[train_key] is not None]
        marker = {"marker": MARKERS[1], "markersize": 4} if len(train) == 1 else {}
        style = {"color": TRAIN_COLOUR, "linewidth": 1.4, **marker}
        axes.plot(*_series(train, train_key), label="training, before each update", **style)
        axes.plot(*_series(evaluations, valid_key), color=COLOURS[0], marker=MARKERS[0], markersize=5, label=label)
        if len(evaluations) == 1:
            _write_value(axes, evaluations[0]["step"], evaluations[0][valid_key])
    if not evaluations and not curve:
        for axes in (loss, score):
            axes.set_xlim(0, 1)
    if len(evaluations) > 1:
        best = max(evaluations, key=lambda each: each["auc"])
        for axes in (loss, score):
            axes.axvline(
                best["step"], color=COLOURS[1], linewidth=1, linestyle=(0, (4, 3)), label="best validation AUC"
            )
    _save(figure, path)


def plot_comparison(runs: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Validation loss and AUC of several runs over their steps, one colour and marker a run.

    Args:
        runs: ``["results"]`` of each run, by the name for the legend.
        path: PNG to write, replaced as a whole.

    Raises:
        OSError: the file cannot be written.
    """
    figure, (loss, score) = _panels("Validation log loss", "Validation AUC")
    for place, (name, results) in enumerate(runs.items()):
        style = {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "markersize": 5,
            "label": name,
        }
        loss.plot(*_series(results["evaluations"], "log_loss"), **style)
        score.plot(*_series(results["evaluations"], "auc"), **style)
    _save(figure, path)


class UsageAxis(NamedTuple):
    """What an axis of a memory stands for, for :func:`plot_memory_usage`.

    Attributes:
        label: of the axis.
        common: the sub-key that takes part in every event, and its name, such as ``(17, "any user")``; None for none.
    """

    label: str
    common: tuple[int, str] | None = None


def usage_axes(model: CTRModel) -> tuple[UsageAxis, UsageAxis]:
    """What the axes of a model's memory stand for.

    Half 0 of a factored query comes from the item and half 1 from the user; the halves of a joint query stand for
    nothing that has a name.
    """
    network = model.memory
    if not isinstance(network, FactoredMemoryNetwork) or not network.halves:
        return UsageAxis("sub-key of axis 0"), UsageAxis("sub-key of axis 1")
    halves = network.halves
    labels = [f"sub-key of the {half}'s code (axis {axis})" for axis, half in enumerate(halves)]
    if not network.marginals:
        return UsageAxis(labels[0]), UsageAxis(labels[1])
    N, columns = network.block.keys.shape[2], len(network.item_sizes) + 1
    device = network.block.keys.device
    ids = torch.zeros(1, columns, dtype=torch.int64, device=device), torch.tensor([network.user_size], device=device)
    common = divmod(int(network.pair_slots(*ids).slots[0, -1, 0]), N)  # any item, the last column, with any user
    first, second = (UsageAxis(label, (key, f"any {half}"))
                     for label, key, half in zip(labels, common, halves, strict=True))  # fmt: skip
    return first, second


def plot_memory_usage(
    usage: MemoryUsage,
    curve: Sequence[Mapping[str, Any]],
    path: Path,
    axes: tuple[UsageAxis, UsageAxis] = (UsageAxis("sub-key of axis 0"), UsageAxis("sub-key of axis 1")),
) -> None:
    """How often slots were read, as a map of the two axes, and the share of slots in use over the steps.

    A memory of more than 128 sub-keys on an axis is drawn in square blocks of slots with the reads of each block.
    The scale is logarithmic up to the 98th percentile of what was read, what was not read is grey, and the most read
    sub-key of each axis is marked and named.

    Args:
        usage: counts since the memory was last emptied.
        curve: points with ``"step"`` and ``"memory"``, as in ``metrics.json``.
        path: PNG to write, replaced as a whole.
        axes: what axis 0, drawn downwards, and axis 1, drawn to the right, stand for.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(11, 6.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid, lines = figure.subplots(1, 2)
    _draw_map(figure, grid, usage, axes)
    points = [point for point in curve if "memory" in point]
    for place, (name, label) in enumerate(
        (("coverage", "since the memory was emptied"), ("recent_coverage", "in the steps since the last mark"))
    ):
        shares = [100 * point["memory"][name] for point in points]
        style = {"color": COLOURS[place], "marker": MARKERS[place], "markersize": 4, "linewidth": 1.4, "label": label}
        lines.plot([point["step"] for point in points], shares, **style)
    _label_steps(lines, "Slots that were read", "% of all slots")
    lines.set_ylim(bottom=0)
    lines.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")  # the map is square, whatever the layout


def _draw_map(figure: Figure, grid: Axes, usage: MemoryUsage, axes: tuple[UsageAxis, UsageAxis]) -> None:
    N = usage.sub_keys
    reads = usage.slot_reads.view(N, N).cpu().numpy().astype(np.int64)
    width = -(-N // MAX_BLOCKS)  # of a block
    starts = np.arange(0, N, width)
    blocks = np.add.reduceat(np.add.reduceat(reads, starts, axis=0), starts, axis=1)
    grid.set_title(f"{N:,} x {N:,} slots, last {usage.step:,} steps", fontsize=12, loc="left")
    grid.set_ylabel(axes[0].label)
    grid.set_xlabel(axes[1].label)
    grid.tick_params(length=0)
    for axis in (grid.xaxis, grid.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    grid.set_facecolor(UNREAD_COLOUR)
    end = len(starts) * width  # the last block may reach beyond the table
    highest = int(blocks.max())
    # Scaled to the most read block, one busy row and column would leave all else dark.
    top = max(10, int(np.quantile(blocks[blocks > 0], 0.98))) if highest else 10
    image = grid.imshow(
        np.ma.masked_equal(blocks, 0), norm=LogNorm(1, top), cmap="viridis", interpolation="nearest",
        extent=(0, end, end, 0),
    )  # fmt: skip
    grid.set_xlim(0, N)
    grid.set_ylim(N, 0)
    if highest == 0:
        grid.annotate("no slot was read", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")
        return
    # Below the map and as wide: between the panels it would pass for the other's.
    what = f"reads of {width} x {width} slots" if width > 1 else "reads of a slot"
    label, form = f"{what}, log scale; grey: none", StrMethodFormatter("{x:,.0f}")
    figure.colorbar(
        image, cax=grid.inset_axes((0.0, -0.19, 1.0, 0.04)), orientation="horizontal", label=label, format=form,
        extend="max" if highest > top else "neither",
    )  # fmt: skip
    _mark_most_read(grid, reads, axes)


def _mark_most_read(grid: Axes, reads: NDArray[np.int64], axes: tuple[UsageAxis, UsageAxis]) -> None:
    """Mark the most read sub-key of each axis at the edge of the map, and name it below the title."""
    texts = []
    for axis, (marker, what) in enumerate(((">", "row"), ("v", "column"))):
        sums = reads.sum(axis=1 - axis)
        most = int(sums.argmax())
        common = axes[axis].common
        name = f" ({common[1]}, in every event)" if common is not None and common[0] == most else ""
        texts.append(f"most read {what}: {most:,}{name}, {sums[most] / sums.sum():.1%} of reads")
        place = (0.0, most + 0.5) if axis == 0 else (most + 0.5, 0.0)
        grid.plot(*([value] for value in place), marker, color=COLOURS[1], markersize=7, clip_on=False)
    grid.set_title(grid.get_title(loc="left") + "".join(f"\n{text}" for text in texts), fontsize=10, loc="left")


def _panels(loss_title: str, score_title: str) -> tuple[Figure, tuple[Axes, Axes]]:
    # A Figure of its own, not pyplot's: no global state, no display, and nothing to close.
    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    loss, score = figure.subplots(1, 2)
    for axes, title, label in (
        (loss, loss_title, "mean over samples"),
        (score, score_title, "area under the ROC curve"),
    ):
        _label_steps(axes, title, label)
    return figure, (loss, score)


def _label_steps(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, fontsize=12, loc="left")
    axes.set_ylabel(label, labelpad=8)
    axes.set_xlabel("training step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)


def _write_value(axes: Axes, step: int, value: float) -> None:
    axes.annotate(f"{value:.4f}", (step, value), xytext=(-8, 0), textcoords="offset points", ha="right", va="center")


def _series(points: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    return [point["step"] for point in points], [point[key] for point in points]


def _save(figure: Figure, path: Path) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
