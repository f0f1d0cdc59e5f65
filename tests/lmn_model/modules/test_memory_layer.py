"""The memory as a layer: shapes, what it computes, its sparse gradient, and its errors."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn

import lmn_model.modules.memory_layer
from lmn_model.modules.memory_layer import MemoryLayer

SMALL = {"sub_keys": 6, "top_k": 3, "key_dim": 4}


def test_it_is_the_weighted_sum_of_the_values_that_the_best_slots_hold() -> None:
    layer = MemoryLayer(5, 7, heads=2, value_std=1.0, **SMALL)
    x = torch.randn(11, 5)
    queries = layer.norm(layer.query(x).view(11, 2, 2, 4))
    scores = torch.einsum("bhac,hanc->bhan", queries, layer.keys)
    every_slot = (scores[:, :, 0, :, None] + scores[:, :, 1, None, :]).flatten(2)  # [B, H, M]
    best = every_slot.topk(3)
    expected = torch.einsum("bhk,bhkd->bd", best.values.softmax(-1), layer.values[best.indices])
    torch.testing.assert_close(layer(x), expected)


def test_heads_can_be_concatenated() -> None:
    layer = MemoryLayer(5, 6, heads=2, concat_heads=True, value_std=1.0, **SMALL)
    x = torch.randn(4, 5)
    read = layer.read(x)
    assert read.output.shape == (4, 6)
    assert read.slots.shape == read.weights.shape == (4, 2, 3)
    for head in range(2):
        own = torch.einsum("bk,bkd->bd", read.weights[:, head], layer.values[read.slots[:, head]])
        torch.testing.assert_close(read.output[:, 3 * head : 3 * head + 3], own)


@pytest.mark.parametrize("shape", [(5,), (0, 5), (3, 5), (2, 3, 5)])
def test_any_leading_shape(shape: tuple[int, ...]) -> None:
    assert MemoryLayer(5, 7, **SMALL)(torch.randn(shape)).shape == (*shape[:-1], 7)


def test_it_goes_into_any_model_in_one_line_and_learns() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), MemoryLayer(8, 1, sub_keys=16, top_k=4, key_dim=4, sparse_grad=False))
    x = torch.rand(256, 2) * 2 - 1
    y = torch.sin(4 * x[:, :1]) * x[:, 1:]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(150):
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_the_sparse_gradient_is_the_dense_one() -> None:
    sparse = MemoryLayer(5, 7, value_std=1.0, **SMALL)
    dense = MemoryLayer(5, 7, value_std=1.0, sparse_grad=False, **SMALL)
    dense.load_state_dict(sparse.state_dict())
    x = torch.randn(9, 5)
    (rows,) = torch.autograd.grad(sparse(x).square().sum(), [sparse.values])
    assert rows.is_coalesced()  # autograd drops the mark, not the order, on its way into .grad
    for layer in (sparse, dense):
        layer(x).square().sum().backward()
    assert sparse.values.grad.is_sparse
    assert torch.equal(sparse.values.grad._indices(), rows.indices())
    torch.testing.assert_close(sparse.values.grad.to_dense(), dense.values.grad)
    for name in ("keys", "query.weight", "norm.weight"):
        torch.testing.assert_close(sparse.get_parameter(name).grad, dense.get_parameter(name).grad)
    assert sparse.values_parameters() == [sparse.values]
    assert dense.values_parameters() == []


@pytest.mark.parametrize("optimizer", [torch.optim.SparseAdam, torch.optim.Adagrad, torch.optim.SGD])
def test_optimisers_for_sparse_gradients_move_touched_rows_alone(optimizer: type[torch.optim.Optimizer]) -> None:
    layer = MemoryLayer(5, 7, **SMALL)
    x = torch.randn(2, 5)
    touched = layer.read(x).slots.unique()
    (layer(x) - 1).square().sum().backward()
    optimizer(layer.values_parameters(), lr=0.1).step()
    moved = layer.values.abs().sum(1).nonzero().squeeze(1)
    assert moved.tolist() == touched.tolist()


def test_an_empty_memory_reads_as_zero_and_can_be_emptied_again() -> None:
    layer = MemoryLayer(5, 7, **SMALL)
    x = torch.randn(3, 5)
    assert layer(x).count_nonzero() == 0
    nn.init.normal_(layer.values)
    assert layer(x).count_nonzero() > 0
    keys = layer.keys.clone()
    layer.reset_values()
    assert layer(x).count_nonzero() == 0
    assert torch.equal(layer.keys, keys)


def test_under_autocast_the_keys_keep_their_type() -> None:
    layer = MemoryLayer(5, 7, value_std=1.0, **SMALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(torch.randn(3, 5))
    assert out.dtype == torch.float32
    assert out.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sub_keys": 0}, "sub_keys must be at least 1, got 0"),
        ({"key_dim": 0}, "key_dim must be at least 1, got 0"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"sub_keys": 4, "top_k": 5}, r"top_k must lie in \[1, sub_keys = 4\], got 5"),
        ({"heads": 2, "concat_heads": True}, "heads must divide out_features = 7, got 2"),
    ],
)
def test_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryLayer(5, 7, **arguments)


def test_its_description_names_its_sizes() -> None:
    assert "slots=36, value_dim=7, top_k=3" in repr(MemoryLayer(5, 7, **SMALL))


def test_the_example_runs() -> None:
    assert doctest.testmod(lmn_model.modules.memory_layer).failed == 0
