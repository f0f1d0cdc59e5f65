"""The state of row optimisers through hooks of ``state_dict`` and through ``torch.distributed.checkpoint``."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from optimizers_factory import OPTIMIZERS, D, M, make, rows_of
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from lmn_kernels.optim import RowAdagrad, RowAdam, RowOptimizer, RowSGD


@pytest.fixture(params=OPTIMIZERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Model(nn.Module):
    """A table beside dense parameters."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.table = nn.Embedding(M, D, sparse=True, dtype=dtype)
        self.tower = nn.Linear(D, 1)

    def optimizers(self, kind: str, **more: Any) -> tuple[RowOptimizer, torch.optim.Optimizer]:
        return make(kind, [self.table.weight], **more), torch.optim.Adam(self.tower.parameters())

    def train_step(self, optimizers: tuple[torch.optim.Optimizer, ...], slots: Tensor) -> None:
        self.tower(self.table(slots).float()).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def trained(kind: str, dtype: torch.dtype = torch.float32) -> tuple[Model, tuple[RowOptimizer, torch.optim.Optimizer]]:
    model = Model(dtype)
    optimizers = model.optimizers(kind)
    for _ in range(3):
        model.train_step(optimizers, torch.randint(M, (6,)))
    return model, optimizers


def assert_equal_state(left: RowOptimizer, right: RowOptimizer) -> None:
    (one,), (other,) = (list(optimizer.state.values()) for optimizer in (left, right))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name])


def test_load_hooks_see_the_whole_state_and_what_they_give_is_loaded(kind: str) -> None:
    _, (source, _) = trained(kind, torch.bfloat16)
    target = make(kind, [nn.Parameter(torch.zeros(M, D, dtype=torch.bfloat16))])
    seen: list[Any] = []

    def renumber(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        seen.append(copy.deepcopy(state_dict["state"]))
        state = {name: tensor + 1 for name, tensor in state_dict["state"][0].items()}
        groups = [{**group, "lr": 0.125, "params": [7]} for group in state_dict["param_groups"]]
        return {"state": {7: state}, "param_groups": groups}

    target.register_load_state_dict_pre_hook(renumber)
    target.register_load_state_dict_post_hook(lambda optimizer: seen.append(copy.copy(dict(optimizer.state))))
    packed = source.state_dict()
    target.load_state_dict(packed)
    before, after = seen
    (expected,), (loaded,) = before.values(), after.values()
    assert expected.keys() == loaded.keys()
    for name, tensor in source.state[source.param_groups[0]["params"][0]].items():
        assert torch.equal(expected[name], tensor)
        assert torch.equal(loaded[name], tensor + 1)
        assert loaded[name].dtype == tensor.dtype  # not the table's bfloat16
    assert target.param_groups[0]["lr"] == 0.125
    assert list(packed["state"]) == [0]  # the caller's dict is as it was


def test_state_dict_hooks_see_the_state_and_give_another(kind: str) -> None:
    _, (optimizer, _) = trained(kind)
    seen: list[int] = []
    optimizer.register_state_dict_pre_hook(lambda optimizer: seen.append(len(optimizer.state)))
    optimizer.register_state_dict_post_hook(lambda optimizer, packed: {**packed, "extra": len(packed["state"])})
    assert optimizer.state_dict()["extra"] == 1
    assert seen == [1]


def test_the_state_that_a_hook_gives_is_checked_and_nothing_is_loaded(kind: str) -> None:
    _, (source, _) = trained(kind)
    target = make(kind, [nn.Parameter(torch.zeros(M, D))], lr=0.5)
    handle = target.register_load_state_dict_pre_hook(
        lambda optimizer, packed: {**packed, "state": {0: {"step": torch.zeros(3)}}}
    )
    with pytest.raises(ValueError, match=r"the state of a table float32 .* must be .*'step': \(\)"):
        target.load_state_dict(source.state_dict())
    assert not target.state
    assert target.param_groups[0]["lr"] == 0.5
    handle.remove()
    target.load_state_dict(source.state_dict())
    assert_equal_state(source, target)
    assert not target._optimizer_load_state_dict_pre_hooks


def test_loaded_state_is_contiguous(kind: str, backend: str, device: torch.device) -> None:
    """The kernels count on it."""
    tables = [nn.Parameter(torch.ones(M, D, device=device)) for _ in range(2)]
    optimizers = [make(kind, [table], backend) for table in tables]
    slots, rows = torch.randint(M, (6,), device=device), torch.randn(6, D, device=device)

    def step(number: int) -> None:
        tables[number].grad = rows_of(slots, rows)
        optimizers[number].step()

    step(0)
    packed = copy.deepcopy(optimizers[0].state_dict())
    for name, tensor in packed["state"][0].items():
        packed["state"][0][name] = tensor.t().contiguous().t() if tensor.dim() == 2 else tensor
    with torch.no_grad():
        tables[1].copy_(tables[0])
    optimizers[1].load_state_dict(packed)
    step(0)
    step(1)
    assert torch.equal(*tables)


def test_state_is_made_by_a_dense_gradient_of_zeros_and_nothing_moves(
    kind: str, backend: str, device: torch.device
) -> None:
    table = nn.Parameter(torch.randn(M, D, device=device))
    before = table.detach().clone()
    optimizer = make(kind, [table], backend, weight_decay=0.5)
    table.grad = torch.zeros_like(table)
    optimizer.step()
    assert torch.equal(table, before)
    state = optimizer.state[table]
    assert state["step"] == 0
    assert state.keys() == {"step", *optimizer._state_shapes(table, optimizer.param_groups[0])}
    for wrong in (1e-30, float("nan")):
        table.grad[3, 2] = wrong
        with pytest.raises(TypeError, match="gradients must be sparse rows"):
            optimizer.step()
    assert torch.equal(table, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_optimiser_takes_what_distributed_checkpoint_saved(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model, optimizers = trained(kind, dtype)
    dcp.save(
        {"model": get_model_state_dict(model), "optim": get_optimizer_state_dict(model, optimizers)},
        checkpoint_id=tmp_path,
    )
    other = Model(dtype)
    fresh = other.optimizers(kind, lr=99.0)
    before = other.table.weight.detach().clone()
    state = {"model": get_model_state_dict(other), "optim": get_optimizer_state_dict(other, fresh)}
    assert torch.equal(other.table.weight, before)  # making the state moved no row
    assert other.table.weight.grad is None
    dcp.load(state, checkpoint_id=tmp_path)
    set_model_state_dict(other, state["model"])
    set_optimizer_state_dict(other, fresh, state["optim"])
    assert fresh[0].param_groups[0]["lr"] == optimizers[0].param_groups[0]["lr"]
    assert_equal_state(optimizers[0], fresh[0])
    slots = torch.randint(M, (6,))
    model.train_step(optimizers, slots)
    other.train_step(fresh, slots)
    assert torch.equal(model.table.weight, other.table.weight)


@pytest.mark.parametrize("options", [StateDictOptions(), StateDictOptions(cpu_offload=True)])
def test_a_state_dict_is_set_on_an_optimiser_with_sparse_gradients_and_with_none(
    kind: str, options: StateDictOptions
) -> None:
    model, optimizers = trained(kind)
    packed = get_optimizer_state_dict(model, optimizers, options=options)
    for with_gradient in (True, False):
        other = Model()
        fresh = other.optimizers(kind)
        if with_gradient:
            other.tower(other.table(torch.tensor([1, 2]))).sum().backward()
        before = other.table.weight.detach().clone()
        set_optimizer_state_dict(other, fresh, copy.deepcopy(packed), options=options)
        assert torch.equal(other.table.weight, before)
        assert (other.table.weight.grad is not None) == with_gradient
        assert_equal_state(optimizers[0], fresh[0])


@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind != "sgd"])  # without a state of rows
def test_a_full_state_dict_goes_round(kind: str) -> None:
    options = StateDictOptions(full_state_dict=True)
    model, optimizers = trained(kind)
    other = Model()
    fresh = other.optimizers(kind)
    packed = copy.deepcopy(get_optimizer_state_dict(model, optimizers, options=options))
    set_optimizer_state_dict(other, fresh, packed, options=options)
    assert_equal_state(optimizers[0], fresh[0])


@pytest.mark.parametrize("optimizer", [RowAdagrad, RowSGD])
def test_a_flattened_state_dict_goes_round(optimizer: Any) -> None:
    """Not of RowAdam: torch flattens no tuple, such as betas, of its own Adam either."""
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    tables = [nn.Embedding(M, D, sparse=True) for _ in range(2)]
    first, second = (optimizer(table.parameters(), lr=0.1) for table in tables)
    tables[0](torch.tensor([1, 2])).sum().backward()
    first.step()
    packed = get_optimizer_state_dict(tables[0], first, options=options)
    set_optimizer_state_dict(tables[1], second, packed, options=options)
    assert_equal_state(first, second)


def test_a_learning_rate_that_is_a_tensor_survives() -> None:
    table = nn.Embedding(M, D, sparse=True)
    optimizer = RowAdam(table.parameters(), lr=torch.tensor(0.25))
    get_optimizer_state_dict(table, optimizer)
    assert isinstance(optimizer.param_groups[0]["lr"], Tensor)
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_copies_keep_state_and_hooks(kind: str) -> None:
    _, (optimizer, _) = trained(kind)
    optimizer.register_load_state_dict_pre_hook(print)
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert_equal_state(optimizer, other)
