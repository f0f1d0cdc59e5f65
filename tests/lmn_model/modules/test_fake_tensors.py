"""Tensors without data, and inference mode: modules run on them, and nothing kept from there is used elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from lmn_kernels.product_key_topk.staircase import staircase, staircase_chunks
from lmn_model import FactoredMemoryNetwork, LargeMemoryNetwork, MemoryLayer
from lmn_model.modules.usage import MemoryUsage

WITHOUT_DATA: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "fake": FakeTensorMode,
    "fake, symbolic": lambda: FakeTensorMode(shape_env=ShapeEnv()),
    "meta": lambda: torch.device("meta"),
}


def factored_memory(open_ids: bool = False) -> FactoredMemoryNetwork:
    network = FactoredMemoryNetwork([30, 6], 11, code_dim=8, sub_keys=8, top_k=2, open_ids=open_ids)
    torch.nn.init.normal_(network.block.values)
    return network


def some_ids() -> tuple[Tensor, Tensor]:
    return torch.zeros(5, 2, dtype=torch.int64), torch.arange(5)


@pytest.mark.parametrize("sparse_grad", [False, True])
@pytest.mark.parametrize("where", WITHOUT_DATA)
def test_a_layer_has_gradients_without_data(where: str, sparse_grad: bool) -> None:
    with WITHOUT_DATA[where]():
        layer = MemoryLayer(5, 4, sub_keys=8, top_k=2, sparse_grad=sparse_grad)
        output = layer(torch.randn(3, 5))
        output.square().sum().backward()
    assert output.shape == (3, 4)
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.shape == parameter.shape
        assert parameter.grad.device == parameter.device
    assert layer.values.grad is not None
    assert layer.values.grad.is_sparse == sparse_grad


@pytest.mark.parametrize("open_ids", [False, True])
@pytest.mark.parametrize("where", [*WITHOUT_DATA, "inference", "functional grad"])
def test_a_factored_memory_reads_real_data_after_it_ran_elsewhere(where: str, open_ids: bool) -> None:
    ids, network = some_ids(), factored_memory(open_ids)
    if open_ids:
        ids[0][1] = 1 << 40
    expected = network(*ids)
    network._stored.__init__()  # type: ignore[misc]
    if where == "inference":
        with torch.inference_mode():
            assert torch.equal(network(*ids), expected)
    elif where == "functional grad":
        keys = network.block.keys.detach()
        grad(lambda x: functional_call(network, {"block.keys": x}, ids).sum())(keys)
    else:
        with WITHOUT_DATA[where]():
            assert factored_memory(open_ids)(*some_ids()).shape == expected.shape
    assert torch.equal(network(*ids), expected)
    network.losses(*ids).answer.backward()
    assert torch.equal(factored_memory(open_ids)(*ids).isnan(), torch.zeros_like(expected, dtype=torch.bool))


@pytest.mark.parametrize("where", WITHOUT_DATA)
def test_a_large_memory_network_runs_without_data(where: str) -> None:
    def read() -> torch.Size:
        network = LargeMemoryNetwork(3, 2, sub_keys=4, top_k=2, key_dim=4)
        return network(torch.randn(5, 3), torch.randn(5, 2)).familiarity.shape

    with WITHOUT_DATA[where]():
        without = read()
    assert without == read() == (5, LargeMemoryNetwork.FAMILIARITY)


@pytest.mark.parametrize("where", [*WITHOUT_DATA, "inference", "nowhere"])
def test_constants_that_ops_keep_are_ordinary_tensors(where: str) -> None:
    cpu = torch.device("cpu")
    k = 3 + [*WITHOUT_DATA, "inference", "nowhere"].index(where)  # kept by no other case
    modes = {**WITHOUT_DATA, "inference": torch.inference_mode, "nowhere": nullcontext}
    with modes[where]():
        staircase(k, cpu)
        staircase_chunks(k, 16, cpu)
    for kept in (staircase(k, cpu), staircase_chunks(k, 16, cpu)):
        assert type(kept) is Tensor
        assert not kept.is_inference()
        assert kept.tolist()
    assert staircase(k, cpu) is staircase(k, cpu)


def test_lists_follow_tensors_that_have_no_version() -> None:
    with torch.inference_mode():
        network = factored_memory()
        before = network.pair_slots(*some_ids()).slots
        assert torch.equal(network.pair_slots(*some_ids()).slots, before)
        network.block.keys.copy_(network.block.keys.flip(2))
        assert not torch.equal(network.pair_slots(*some_ids()).slots, before)


def test_lists_follow_other_data_at_the_same_place() -> None:
    """``.to()`` gives a parameter new data, and the allocator gives a freed place again."""
    network = factored_memory()
    stale = 0
    for _ in range(30):
        network.block.keys.data = torch.zeros(1)
        network.block.keys.data = torch.randn(1, 2, 8, 8)
        found = network.pair_slots(*some_ids()).slots
        network._stored.__init__()  # type: ignore[misc]
        stale += not torch.equal(network.pair_slots(*some_ids()).slots, found)
    assert stale == 0


@pytest.mark.parametrize("where", WITHOUT_DATA)
def test_reads_without_data_are_not_counted(where: str) -> None:
    layer = MemoryLayer(5, 4, sub_keys=8, top_k=2)
    layer.usage = MemoryUsage(8)
    with WITHOUT_DATA[where]():
        other = MemoryLayer(5, 4, sub_keys=8, top_k=2)
        other.usage = layer.usage
        other(torch.randn(3, 5))
    layer(torch.randn(3, 5))
    assert int(layer.usage.slot_reads.sum()) == 6
