"""Pictures of runs as PNG files: learning curves, of one run or of several side by side, and the use of a memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from torch.nn.functional import adaptive_avg_pool2d

from lmn_model.files import replacing
from lmn_model.usage import MemoryUsage

# Okabe and Ito's palette: told apart with every common colour blindness, and by lightness in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "D", "^", "v", "P")
TRAIN_COLOUR = "#8C8C8C"
MOST_PIXELS = 1024


def plot_learning_curves(results: Mapping[str, Any], path: Path) -> None:
    """Loss and AUC of one run over its steps: training rows before they were learnt from, and the validation part.

    Args:
        results: ``["results"]`` of ``metrics.json``.
        path: PNG to write, replaced as a whole.

    Raises:
        OSError: the file cannot be written.
    """
    figure, (loss, score) = _panels("Log loss", "AUC")
    evaluations, curve = results["evaluations"], results["curve"]
    for axes, train_key, valid_key in ((loss, "loss", "log_loss"), (score, "auc", "auc")):
        train = [point for point in curve if point[train_key] is not None]
        axes.plot(*_series(train, train_key), color=TRAIN_COLOUR, linewidth=1.4, label="training, before learning")
        axes.plot(
            *_series(evaluations, valid_key), color=COLOURS[0], marker=MARKERS[0], markersize=5, label="validation"
        )
    if evaluations:
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


def plot_memory_usage(usage: MemoryUsage, curve: Sequence[Mapping[str, Any]], path: Path) -> None:
    """How often each slot was read, as a map of the two axes, and the share of slots in use over the steps.

    Args:
        usage: counts since the memory was last emptied.
        curve: points with ``"step"`` and ``"memory"``, as in ``metrics.json``.
        path: PNG to write, replaced as a whole.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(11, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid, lines = figure.subplots(1, 2)
    N = usage.sub_keys
    # Blocks of slots share a pixel where the map is finer than the screen, and show their mean.
    reads = adaptive_avg_pool2d(usage.slot_reads.view(1, N, N).double().cpu(), min(N, MOST_PIXELS))[0].numpy()
    highest = max(float(reads.max()), 1.0)
    image = grid.imshow(
        reads, norm=SymLogNorm(1.0, vmin=0.0, vmax=highest), cmap="viridis", interpolation="nearest",
        extent=(0, N, N, 0),
    )  # fmt: skip
    ticks = [0, *(10**power for power in range(len(str(int(highest)))))]
    figure.colorbar(
        image, ax=grid, label="reads of a slot", ticks=ticks, format=StrMethodFormatter("{x:,.0f}"), shrink=0.9
    )
    grid.set_title(f"{N:,} x {N:,} slots, last {usage.step:,} steps", fontsize=12, loc="left")
    grid.set_xlabel("sub-key of axis 1")
    grid.set_ylabel("sub-key of axis 0")
    grid.tick_params(length=0)
    points = [point for point in curve if "memory" in point]
    for place, (name, label) in enumerate(
        (("coverage", "since the memory was emptied"), ("recent_coverage", "since the point before"))
    ):
        shares = [100 * point["memory"][name] for point in points]
        style = {"color": COLOURS[place], "marker": MARKERS[place], "markersize": 4, "linewidth": 1.4, "label": label}
        lines.plot([point["step"] for point in points], shares, **style)
    _label_steps(lines, "Slots that were read", "% of all slots")
    lines.set_ylim(bottom=0)
    lines.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _panels(loss_title: str, score_title: str) -> tuple[Figure, tuple[Axes, Axes]]:
    # A Figure of its own, not pyplot's: no global state, no display, and nothing to close.
    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    loss, score = figure.subplots(1, 2)
    for axes, title, label in ((loss, loss_title, "nats a row"), (score, score_title, "area under the ROC curve")):
        _label_steps(axes, title, label)
    return figure, (loss, score)


def _label_steps(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, fontsize=12, loc="left")
    axes.set_ylabel(label, labelpad=8)
    axes.set_xlabel("training step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)


def _series(points: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    return [point["step"] for point in points], [point[key] for point in points]


def _save(figure: Figure, path: Path) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
