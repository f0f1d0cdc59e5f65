"""Memories inside what models are trained and shipped with: DDP, activation checkpointing, compile and export."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from lmn_model import FactoredMemoryNetwork, MemoryLayer

SMALL = {"sub_keys": 6, "top_k": 3, "key_dim": 4, "value_std": 1.0}


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_ddp_trains_a_layer_with_dense_gradients() -> None:
    layer = MemoryLayer(5, 7, sparse_grad=False, **SMALL)
    wrapped = DistributedDataParallel(copy.deepcopy(layer))
    x = torch.randn(11, 5)
    layer(x).square().sum().backward()
    wrapped(x).square().sum().backward()
    for (name, ours), theirs in zip(layer.named_parameters(), wrapped.module.parameters(), strict=True):
        assert ours.grad is not None, name
        torch.testing.assert_close(theirs.grad, ours.grad, msg=name)


@pytest.mark.parametrize("sparse_grad", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(sparse_grad: bool) -> None:
    model = nn.Sequential(nn.Linear(5, 5), MemoryLayer(5, 7, sparse_grad=sparse_grad, **SMALL), nn.ReLU())
    again = copy.deepcopy(model)
    x = torch.randn(11, 5)
    model(x).square().sum().backward()
    checkpoint(again, x, use_reentrant=False).square().sum().backward()
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(theirs.grad.to_dense(), ours.grad.to_dense())


def test_export_keeps_the_op_whole_and_the_batch_dynamic() -> None:
    layer = MemoryLayer(5, 7, **SMALL).eval()
    exported = torch.export.export(
        layer, (torch.randn(4, 5),), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=4096)},)
    )
    names = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert any(name.startswith("lmn_kernels.memory_lookup") for name in names)
    x = torch.randn(33, 5)
    torch.testing.assert_close(exported.module()(x), layer(x))


def cells_memory() -> tuple[FactoredMemoryNetwork, tuple[torch.Tensor, torch.Tensor]]:
    network = FactoredMemoryNetwork([30, 6], 11, code_dim=8, sub_keys=8, top_k=2)
    nn.init.normal_(network.memory.values)
    item = torch.stack((torch.randint(30, (5,)), torch.randint(6, (5,))), dim=1)
    return network, (item, torch.randint(11, (5,)))


def test_a_memory_of_cells_compiled_follows_its_sub_keys() -> None:
    torch._dynamo.reset()
    network, ids = cells_memory()
    compiled = torch.compile(network)
    for change in (
        lambda: None,
        lambda: network.memory.keys.normal_(),
        lambda: network.memory.asleep[0, 0, :3].fill_(1),
    ):
        with torch.no_grad():
            change()
        torch.testing.assert_close(compiled(*ids), network(*ids))


def test_a_memory_of_cells_exported_reads_by_its_lists() -> None:
    network, (item, user) = cells_memory()
    batch = {0: torch.export.Dim("batch", min=2, max=4096)}

    def export() -> torch.export.ExportedProgram:
        return torch.export.export(network.eval(), (item, user), dynamic_shapes=(batch, batch))

    with pytest.raises(RuntimeError, match="call the network once before"):
        export()
    network(item, user)
    exported = export()
    operators = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert not any("mm" in name or "normalize" in name for name in operators), "no search of keys"
    rows = torch.randint(5, (33,))
    torch.testing.assert_close(exported.module()(item[rows], user[rows]), network(item[rows], user[rows]))
    for assign in (False, True):
        other, _ = cells_memory()
        network(item, user)
        network.load_state_dict(other.state_dict(), assign=assign)
        with pytest.raises(RuntimeError, match="call the network once before"):
            export()
    with torch.no_grad():
        network(item, user)
        network.memory.keys.normal_()
    with pytest.raises(RuntimeError, match="call the network once before"):
        export()
