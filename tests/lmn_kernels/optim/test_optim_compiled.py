"""Compiled training steps: what updates sparse rows opts out of the compiler, as ``torch.optim.SparseAdam`` does."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from optimizers_factory import OPTIMIZERS, D, M, make, rows_of
from torch import Tensor, nn

from lmn_kernels import gather_aggregate
from lmn_kernels.optim import clip_grad_norm_
from lmn_model import MemoryLayer


@pytest.fixture(params=OPTIMIZERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, backend="aot_eager")


def test_a_compiled_step_and_zero_grad_do_what_the_eager_ones_do(kind: str, backend: str, device: torch.device) -> None:
    tables = [nn.Parameter(torch.ones(M, D, device=device)) for _ in range(2)]
    optimizers = [make(kind, [table], backend) for table in tables]
    steps = [optimizers[0].step, compiled(optimizers[1].step)]
    for _ in range(3):
        slots, rows = torch.randint(M, (6,), device=device), torch.randn(6, D, device=device)
        for table, step in zip(tables, steps, strict=True):
            table.grad = rows_of(slots, rows)
            step()
    assert torch.equal(*tables)
    assert not torch.equal(tables[0], torch.ones_like(tables[0]))
    compiled(optimizers[1].zero_grad)()
    assert tables[1].grad is None


def test_a_compiled_step_calls_its_closure(kind: str) -> None:
    table = nn.Parameter(torch.ones(M, D))
    optimizer = make(kind, [table])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = gather_aggregate(table, torch.tensor([[1]]), torch.ones(1, 1), sparse_grad=True).sum()
        loss.backward()
        return loss

    assert compiled(optimizer.step)(closure).item() == D
    assert (table != 1).any(1).nonzero()[:, 0].tolist() == [1]


def test_compiled_clipping_does_what_eager_clipping_does() -> None:
    def parameters() -> list[Tensor]:
        table, dense = nn.Parameter(torch.zeros(M, D)), nn.Parameter(torch.zeros(3))
        table.grad, dense.grad = rows_of(torch.tensor([1, 4, 1]), torch.ones(3, D)), torch.ones(3)
        return [table, dense]

    eager, other = parameters(), parameters()
    expected = clip_grad_norm_(eager, 1.0)
    assert torch.equal(compiled(clip_grad_norm_)(other, 1.0), expected)
    for left, right in zip(eager, other, strict=True):
        assert left.grad is not None
        assert right.grad is not None
        assert torch.equal(left.grad.to_dense(), right.grad.to_dense())


def training_step(model: nn.Module, table: Tensor, kind: str) -> Callable[[Tensor, Tensor], Tensor]:
    dense = torch.optim.SGD([p for p in model.parameters() if p is not table], lr=0.1)
    rows = make(kind, [table])

    def step(x: Tensor, target: Tensor) -> Tensor:
        loss = (model(x) - target).square().mean()
        loss.backward()
        clip_grad_norm_(model.parameters(), 0.5)
        for optimizer in (dense, rows):
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    return step


def assert_trained_alike(models: list[nn.Module], tables: list[Tensor], kind: str, inputs: list[Tensor]) -> None:
    before = tables[0].detach().clone()
    eager, other = (training_step(model, table, kind) for model, table in zip(models, tables, strict=True))
    other = compiled(other)
    for x in inputs:
        target = torch.randn(6, 4)
        torch.testing.assert_close(other(x, target), eager(x, target))
    assert not torch.equal(tables[0], before)
    for left, right in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(left, right)
        assert right.grad is None


def test_a_compiled_training_step_trains_as_an_eager_one(kind: str) -> None:
    models = [nn.Sequential(nn.Embedding(M, D, sparse=True), nn.Linear(D, 4))]
    models.append(copy.deepcopy(models[0]))
    tables = [model[0].weight for model in models]
    assert_trained_alike(list(models), tables, kind, [torch.randint(M, (6,)) for _ in range(3)])


def test_a_compiled_training_step_of_a_memory_layer_trains_as_an_eager_one() -> None:
    layers = [MemoryLayer(8, 4, sub_keys=4, top_k=2, key_dim=4, value_std=0.1)]
    layers.append(copy.deepcopy(layers[0]))
    assert_trained_alike(list(layers), [layer.values for layer in layers], "adagrad", [torch.randn(6, 8)])


def test_the_optimisers_do_not_import_the_compiler() -> None:
    code = "import sys, lmn_kernels.optim; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
