"""Plots of runs, checked on the objects of matplotlib: axes, scales, colour scale and marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from rows_factory import write_rows

from lmn_model.ctr import CTRModel, MemorySettings, ModelSettings
from lmn_model.data import CategoricalFeature, FeatureSpec
from lmn_model.modules.usage import MemoryUsage
from lmn_model.training import train
from lmn_model.training.reporting.plots import (
    MAX_BLOCKS,
    UsageAxis,
    plot_learning_curves,
    plot_memory_usage,
    usage_axes,
)
from lmn_model.training.settings import Settings

FEATURES = FeatureSpec(
    user=(CategoricalFeature("user", 30),),
    item=(CategoricalFeature("item", 40), CategoricalFeature("category", 5)),
    context=(),
    numeric=(),
)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved while the test runs."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def _usage(N: int, reads: dict[tuple[int, int], int]) -> MemoryUsage:
    usage = MemoryUsage(N, by_sub_key=False)
    for (first, second), count in reads.items():
        usage.record(torch.full((count, 1, 1), first * N + second))
    usage.step = 5
    return usage


def _map(figure: Figure) -> Axes:
    return figure.axes[0]


def _colour_bar(figure: Figure) -> Axes:
    (bar,) = _map(figure).child_axes
    return bar


def _texts(axes: Axes) -> str:
    return "\n".join([axes.get_title(loc="left"), *(text.get_text() for text in axes.texts)])


def _point(step: int) -> dict[str, Any]:
    return {"step": step, "memory": {"coverage": 0.1, "recent_coverage": 0.05}}


@pytest.mark.parametrize("N", [1, 3, 4, 64, 127, 128, 129, 200, 1024])
def test_the_map_counts_every_read_once_on_a_log_scale(tmp_path: Path, drawn: list[Figure], N: int) -> None:
    rng = np.random.default_rng(N)
    slots = [tuple(rng.integers(0, N, 2)) for _ in range(50)]
    usage = _usage(N, {slot: 3 + place for place, slot in enumerate(slots)})
    plot_memory_usage(usage, [_point(5)], tmp_path / "usage.png")
    (image,) = _map(drawn[0]).images
    blocks = image.get_array()
    width = -(-N // MAX_BLOCKS)
    assert blocks.shape == (-(-N // width),) * 2
    assert max(blocks.shape) <= MAX_BLOCKS
    assert blocks.sum() == usage.slot_reads.sum()
    expected = np.zeros(blocks.shape, dtype=np.int64)
    for slot, count in enumerate(usage.slot_reads.tolist()):
        expected[slot // N // width, slot % N // width] += count
    assert (blocks.filled(0) == expected).all()
    assert (blocks.mask == (expected == 0)).all()  # what was not read has no colour of the scale
    assert isinstance(image.norm, LogNorm)
    assert image.norm.vmin == 1 < image.norm.vmax
    assert _map(drawn[0]).get_xlim() == (0, N)
    assert _map(drawn[0]).get_ylim() == (N, 0)


def test_one_busy_slot_leaves_the_rest_of_the_map_legible(tmp_path: Path, drawn: list[Figure]) -> None:
    reads = {(row, column): 20 for row in range(16) for column in range(16)}
    plot_memory_usage(_usage(16, {**reads, (3, 4): 100_000}), [], tmp_path / "usage.png")
    (image,) = _map(drawn[0]).images
    assert image.norm(20) == pytest.approx(1.0)
    assert image.colorbar.extend == "max"


@pytest.mark.parametrize("N", [4, 64, 1024])
def test_the_colour_bar_lies_below_the_map_and_says_what_it_counts(tmp_path: Path, drawn: list[Figure], N: int) -> None:
    plot_memory_usage(_usage(N, {(0, 0): 30, (N - 1, 1): 4}), [_point(5)], tmp_path / "usage.png")
    figure = drawn[0]
    FigureCanvasAgg(figure).draw()
    grid, lines = figure.axes[:2]
    bar = _colour_bar(figure).get_window_extent()
    assert bar.y1 < grid.get_window_extent().y0
    assert bar.x0 == pytest.approx(grid.get_window_extent().x0, abs=2)
    assert bar.x1 < lines.get_window_extent().x0
    width = -(-N // MAX_BLOCKS)
    what = "reads of a slot" if width == 1 else f"reads of {width} x {width} slots"
    assert _colour_bar(figure).get_xlabel() == f"{what}, log scale; grey: none"


def test_the_most_read_sub_keys_are_named_with_their_share(tmp_path: Path, drawn: list[Figure]) -> None:
    usage = _usage(8, {(2, 5): 60, (1, 5): 20, (2, 0): 10, (7, 7): 10})
    axes = UsageAxis("item", (6, "any item")), UsageAxis("user", (5, "any user"))
    plot_memory_usage(usage, [], tmp_path / "usage.png", axes)
    grid = _map(drawn[0])
    assert (grid.get_ylabel(), grid.get_xlabel()) == ("item", "user")
    assert "most read row: 2, 70.0% of reads" in _texts(grid)
    assert "most read column: 5 (any user, in every event), 80.0% of reads" in _texts(grid)
    marks = sorted(tuple(float(each[0]) for each in line.get_data()) for line in grid.lines)
    assert marks == [(0.0, 2.5), (5.5, 0.0)]


def test_a_memory_that_was_not_read_says_so(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_memory_usage(_usage(16, {}), [], tmp_path / "usage.png")
    assert "no slot was read" in _texts(_map(drawn[0]))
    assert not _map(drawn[0]).child_axes
    assert not _map(drawn[0]).lines


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({}, ("item", "user")),
        ({"top_k": 2}, ("item", "user")),
    ],
)
def test_axes_of_a_factored_memory_name_item_and_user(options: dict[str, Any], labels: tuple[str, str]) -> None:
    memory = MemorySettings(sub_keys=16, code_dim=8, **options)
    model = CTRModel(FEATURES, ModelSettings(hidden=(4,), memory=memory))
    axes = usage_axes(model)
    assert [each.label for each in axes] == [
        f"sub-key of the {label}'s code (axis {place})" for place, label in enumerate(labels)
    ]
    network = model.memory
    codes = {"any item": network.item_codes[-1], "any user": network.user_codes[-1]}
    for place, axis in enumerate(axes):  # the best sub-key of a code by cosine, by hand
        assert axis.common is not None
        key, name = axis.common
        keys = network.block.keys[0, place]
        assert key == int((keys @ codes[name] / keys.norm(dim=1)).argmax())
        assert name == f"any {labels[place]}"


def test_axes_without_a_name_claim_none() -> None:
    for options, label in (
        ({"kind": "joint", "sub_keys": 8}, "sub-key of axis"),
        ({"marginals": False, "sub_keys": 8, "code_dim": 8}, "sub-key of the"),
    ):
        axes = usage_axes(CTRModel(FEATURES, ModelSettings(hidden=(4,), memory=MemorySettings(**options))))
        assert all(each.common is None and each.label.startswith(label) for each in axes)


def test_training_draws_item_and_user_and_names_what_every_event_reads(tmp_path: Path, drawn: list[Figure]) -> None:
    values = {
        "dataset": "rows", "path": str(write_rows(tmp_path / "rows")), "sub_keys": 16, "code_dim": 8, "epochs": 1,
        "batch_size": 16, "threads": 1, "device": "cpu",
    }  # fmt: skip
    train(Settings().override(values), tmp_path / "run")
    (figure,) = [each for each in drawn if len(each.axes[0].images) == 1][-1:]
    assert _map(figure).get_xlabel() == "sub-key of the user's code (axis 1)"
    assert _map(figure).get_ylabel() == "sub-key of the item's code (axis 0)"
    assert "(any user, in every event)" in _texts(_map(figure))


@pytest.mark.parametrize("evaluations", [0, 1, 2, 5])
def test_one_evaluation_is_a_point_with_its_value_and_no_curve(
    tmp_path: Path, drawn: list[Figure], evaluations: int
) -> None:
    found = [{"step": 10 * place, "auc": 0.6 + place / 100, "log_loss": 0.5} for place in range(1, evaluations + 1)]
    curve = [{"step": step, "auc": 0.5, "log_loss": 0.6, "loss": 0.6} for step in (5, 10)]
    plot_learning_curves({"evaluations": found, "curve": curve}, tmp_path / "curves.png")
    for axes, text in zip(drawn[0].axes, ("0.5000", "0.6100"), strict=True):
        labels = axes.get_legend_handles_labels()[1]
        assert ("validation, evaluated once" in labels) == (evaluations == 1)
        assert ("best validation AUC" in labels) == (evaluations > 1)
        assert [each.get_text() for each in axes.texts] == ([text] if evaluations == 1 else [])
        validation = next(line for line in axes.lines if str(line.get_label()).startswith("validation"))
        assert validation.get_marker() == "o"


@pytest.mark.parametrize("steps", [[1], [1, 2], [79]])
def test_steps_are_whole_numbers_and_each_tick_is_another(
    tmp_path: Path, drawn: list[Figure], steps: list[int]
) -> None:
    curve = [{"step": step, "auc": None, "loss": 0.7} for step in steps]
    evaluations = [{"step": steps[-1], "auc": 0.5, "log_loss": 0.7}]
    plot_learning_curves({"evaluations": evaluations, "curve": curve}, tmp_path / "curves.png")
    FigureCanvasAgg(drawn[0]).draw()
    for axes in drawn[0].axes:
        ticks = [label.get_text() for label in axes.get_xticklabels()]
        assert len({*ticks}) == len(ticks)
    training = next(line for line in drawn[0].axes[0].lines if "training" in str(line.get_label()))
    assert (training.get_marker() not in ("None", None, "")) == (len(steps) == 1)
