"""Learning curves as PNG files: loss and AUC over the training rows, of one run or of several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from lmn_model.files import replacing

# Okabe and Ito's palette: told apart with every common colour blindness, and by lightness in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "D", "^", "v", "P")
TRAIN_COLOUR = "#8C8C8C"


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


def _panels(loss_title: str, score_title: str) -> tuple[Figure, tuple[Axes, Axes]]:
    # A Figure of its own, not pyplot's: no global state, no display, and nothing to close.
    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    loss, score = figure.subplots(1, 2)
    for axes, title, label in ((loss, loss_title, "nats a row"), (score, score_title, "area under the ROC curve")):
        axes.set_title(title, fontsize=12, loc="left")
        axes.set_ylabel(label, labelpad=8)
        axes.set_xlabel("training step")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, (loss, score)


def _series(points: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    return [point["step"] for point in points], [point[key] for point in points]


def _save(figure: Figure, path: Path) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
