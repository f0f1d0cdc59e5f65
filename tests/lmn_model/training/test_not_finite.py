"""NaN and infinity: refused by a layer that checks, and where they stop a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from runs_factory import before_step, tiny_flags, tiny_settings, write_events

from lmn_model import LargeMemoryNetwork, MemoryLayer
from lmn_model.cli.main import main
from lmn_model.training import TrainingError, train
from lmn_model.training.build import open_dataset
from lmn_model.training.divergence import StepWatch
from lmn_model.training.loop import Trainer

SMALL = {"sub_keys": 6, "top_k": 3, "key_dim": 4}


def with_wrong(rows: int, width: int, value: float, *wrong: int) -> torch.Tensor:
    x = torch.randn(rows, width)
    for row in wrong:
        x[row, -1] = value
    return x


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_layer_that_checks_names_the_count_and_the_first_row(value: float) -> None:
    layer = MemoryLayer(5, 7, check_finite=True, **SMALL)
    x = with_wrong(9, 5, value, 3, 7)
    message = r"MemoryLayer: x must be finite, got 2 numbers that are NaN or infinite, the first in row 3"
    for shape in ((9, 5), (3, 3, 5)):
        with pytest.raises(ValueError, match=message):
            layer(x.view(shape))
    queries = layer.queries(torch.randn(4, 5))
    queries[2] = value
    with pytest.raises(ValueError, match=r"MemoryLayer: queries must be finite, got 8 numbers .* the first in row 2"):
        layer.look_up(queries)


def test_a_check_changes_nothing_where_all_is_finite() -> None:
    layers = [MemoryLayer(5, 7, value_std=1.0, check_finite=check, **SMALL) for check in (False, True)]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(9, 5)
    outputs = [layer(x) for layer in layers]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    assert torch.equal(layers[0].keys.grad, layers[1].keys.grad)
    assert layers[1](torch.randn(0, 5)).shape == (0, 7)


def test_what_the_check_is_for() -> None:
    """Without it the loss stays finite while one row turns the query map into NaN: the docs say so."""
    layer = MemoryLayer(5, 7, value_std=1.0, **SMALL)
    output = layer(with_wrong(9, 5, float("nan"), 3))
    assert output.isfinite().all()
    output.square().sum().backward()
    assert layer.query.weight.grad.isnan().all(1).any()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("item", "item must be finite, got 1 numbers .* row 2"), ("user", "user must be finite, got 1 numbers .* row 2")],
)
def test_a_network_that_checks_names_the_half(wrong: str, message: str) -> None:
    network = LargeMemoryNetwork(4, 3, check_finite=True, **SMALL)
    halves = {"item": torch.randn(5, 4), "user": torch.randn(5, 3)}
    halves[wrong] = with_wrong(5, halves[wrong].shape[1], float("nan"), 2)
    with pytest.raises(ValueError, match=f"LargeMemoryNetwork: {message}"):
        network(halves["item"], halves["user"])


def test_a_network_that_checks_looks_at_real_positions_alone() -> None:
    network = LargeMemoryNetwork(4, 3, check_finite=True, **SMALL)
    history, mask, user = torch.randn(5, 2, 4), torch.ones(5, 2, dtype=torch.bool), torch.randn(5, 3)
    history[3, 0], mask[3, 0] = torch.nan, False
    assert network.losses(history, mask, user).answer.isfinite()
    mask[3, 0] = True
    with pytest.raises(ValueError, match=r"LargeMemoryNetwork: history must be finite, got 4 numbers .* in row 3"):
        network.losses(history, mask, user)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_events(tmp_path_factory.mktemp("events") / "events.parquet")


@torch.no_grad()
def spoil_a_weight(trainer: Trainer) -> None:
    trainer.state.model.tower[0].weight[0, 0] = torch.nan


def spoil_a_gradient(trainer: Trainer) -> None:
    """NaN in one gradient while the loss is finite, as a row with NaN gives it to the query map of a layer."""
    model = trainer.state.model
    model.memory.block.query.weight.register_hook(lambda grad: grad.index_fill(0, torch.tensor(0), torch.nan))  # type: ignore[union-attr]


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_a_weight, "the weight 'tower.0.weight' became NaN or infinite at step 5"),
        (spoil_a_gradient, "the gradient of the weight 'memory.block.query.weight' became NaN or infinite at step 5"),
    ],
)
def test_training_stops_at_the_step_that_is_not_finite(
    tmp_path: Path,
    events: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Trainer], None],
    message: str,
    clip_norm: float | None,
) -> None:
    before_step(monkeypatch, 5, spoil)
    with pytest.raises(TrainingError, match=message):
        train(tiny_settings(events, checkpoint_steps=3, clip_norm=clip_norm), tmp_path / "run")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_training_names_the_column_that_is_not_finite(tmp_path: Path, events: Path, value: float) -> None:
    settings = tiny_settings(events, order="time")
    dataset = open_dataset(settings.data)
    numeric = dataset.train.tables.events.numbers
    numeric[dataset.train.events[130]] = np.float32(value)  # of the third step
    with pytest.raises(TrainingError, match="the input column 'price' holds NaN or infinity at step 3; no state was"):
        train(settings, tmp_path / "run", dataset=dataset)


def test_the_command_says_so_in_one_line(
    tmp_path: Path, events: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before_step(monkeypatch, 2, spoil_a_weight)
    code = main(["train", "--out", str(tmp_path / "run"), *tiny_flags(events)])
    lines = [line for line in capsys.readouterr().err.splitlines() if "tower.0.weight" in line]
    assert code == 2
    assert len(lines) == 1
    assert "at step 2" in lines[0]


def test_a_watch_that_is_read_late_still_knows() -> None:
    """As on a GPU, where it is read every so many steps, after the update."""
    layer = torch.nn.Linear(2, 1)
    watch = StepWatch(layer, (), torch.device("cpu"))
    for value in (1.0, torch.inf, 1.0):
        layer.zero_grad()
        loss = (layer(torch.ones(1, 2)) * value).sum()
        loss.backward()
        watch.look(None, loss)  # type: ignore[arg-type]
    assert watch.problem() == "the loss became NaN or infinite"
    assert watch.problem() is None
