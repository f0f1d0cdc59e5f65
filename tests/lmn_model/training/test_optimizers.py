"""Optimisers: sparse rows beside dense parameters, in steps, decay, clipping, reset and a saved state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from runs_factory import tiny_settings, write_events
from torch import nn

from lmn_model.training.build import open_dataset
from lmn_model.training.loop import Trainer
from lmn_model.training.optimizers import Optimizers
from lmn_model.training.runs.folder import RunFolder


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_events(tmp_path_factory.mktemp("events") / "events.parquet")


@pytest.mark.parametrize("optimizer", ["row_adagrad", "row_adam", "adagrad", "sparse_adam"])
def test_only_touched_rows_of_the_memory_move_and_reset_is_a_fresh_start(events: Path, optimizer: str) -> None:
    settings = tiny_settings(events, memory_optimizer=optimizer, batch_size=2, weight_decay=0.1)
    dataset = open_dataset(settings.data)
    trainer = Trainer(settings, dataset, RunFolder("unused"), torch.device("cpu"))
    (values,) = trainer.state.model.sparse_parameters()
    fresh = {name: value.clone() for name, value in trainer.state.optimizers.state()[0].items()}
    before = values.detach().clone()
    trainer._step(dataset.train.batch(torch.arange(2).numpy()))
    moved = (values.detach() != before).any(dim=1)
    assert 0 < moved.sum() < len(values)
    assert trainer.state.progress.train_rows == 2

    trainer.state.optimizers.reset([values])
    tensors, scalars = trainer.state.optimizers.state()
    (table,) = (name for name, parameter in trainer.state.model.named_parameters() if parameter is values)
    own = {name: value for name, value in tensors.items() if name.startswith(f"{table}/")}
    assert own
    assert all(value.count_nonzero() == 0 for value in own.values())
    assert all(scalar == 0 for scalar in scalars.values())
    assert all(torch.equal(tensors[name], value) for name, value in fresh.items() if name in own)


def test_optimizers_decay_matrices_of_linear_layers_alone(events: Path) -> None:
    settings = tiny_settings(events, weight_decay=0.25)
    trainer = Trainer(settings, open_dataset(settings.data), RunFolder("unused"), torch.device("cpu"))
    adam = trainer.state.optimizers._optimizers[0]
    matrices = {id(m.weight) for m in trainer.state.model.modules() if isinstance(m, nn.Linear)}
    decay = {id(p): group["weight_decay"] for group in adam.param_groups for p in group["params"]}
    assert {key for key, value in decay.items() if value == 0.25} == matrices
    assert len(decay) + len(trainer.state.model.sparse_parameters()) == len(list(trainer.state.model.parameters()))


@pytest.mark.parametrize("optimizer", ["row_adagrad", "row_adam", "adagrad", "sparse_adam"])
def test_optimizer_state_round_trip_continues_equally(events: Path, optimizer: str) -> None:
    settings = tiny_settings(events, memory_optimizer=optimizer)
    dataset = open_dataset(settings.data)
    batches = [dataset.train.batch(torch.arange(start, start + 16).numpy()) for start in (0, 16, 32)]
    trainers = []
    for _ in range(2):
        torch.manual_seed(0)
        trainers.append(Trainer(settings, dataset, RunFolder("unused"), torch.device("cpu")))
        trainers[-1].state.model.eval()
    for batch in batches[:2]:
        trainers[0]._step(batch)
    trainers[1].state.model.load_state_dict(trainers[0].state.model.state_dict())
    trainers[1].state.optimizers = Optimizers(trainers[1].state.model, settings.training)
    tensors, scalars = trainers[0].state.optimizers.state()
    trainers[1].state.optimizers.load_state({name: value.clone() for name, value in tensors.items()}, scalars)
    for trainer in trainers:
        trainer._step(batches[2])
    for left, right in zip(*(trainer.state.model.parameters() for trainer in trainers), strict=True):
        assert torch.equal(left, right)
