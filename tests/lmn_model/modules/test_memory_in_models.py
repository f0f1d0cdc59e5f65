"""Memories inside what models are trained and shipped with: DDP, activation checkpointing, compile and export."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from lmn_kernels import axis_topk
from lmn_kernels.optim import RowAdagrad
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


def factored_memory() -> tuple[FactoredMemoryNetwork, tuple[torch.Tensor, torch.Tensor]]:
    network = FactoredMemoryNetwork([30, 6], 11, code_dim=8, sub_keys=8, top_k=2)
    nn.init.normal_(network.block.values)
    item = torch.stack((torch.randint(30, (5,)), torch.randint(6, (5,))), dim=1)
    return network, (item, torch.randint(11, (5,)))


def test_a_factored_memory_compiled_follows_its_sub_keys() -> None:
    torch._dynamo.reset()
    network, ids = factored_memory()
    compiled = torch.compile(network)
    for change in (
        lambda: None,
        lambda: network.block.keys.normal_(),
        lambda: network.block.inactive[0, 0, :3].fill_(1),
    ):
        with torch.no_grad():
            change()
        torch.testing.assert_close(compiled(*ids), network(*ids))
    for _ in range(2):
        torch._dynamo.reset()  # or it takes the graphs of before
        with pytest.raises(torch._dynamo.exc.Unsupported, match="_lists_outside_a_graph"):
            torch.compile(network, fullgraph=True)(*ids)


def test_a_factored_memory_exported_reads_by_its_lists() -> None:
    network, (item, user) = factored_memory()
    batch = {0: torch.export.Dim("batch", min=2, max=4096)}

    def export() -> torch.export.ExportedProgram:
        return torch.export.export(network.eval(), (item, user), dynamic_shapes=(batch, batch))

    with pytest.raises(RuntimeError, match="call the network once before"):
        export()
    network(item, user)
    exported = export()
    assert not searches(exported.graph_module)
    rows = torch.randint(5, (33,))
    torch.testing.assert_close(exported.module()(item[rows], user[rows]), network(item[rows], user[rows]))
    for assign in (False, True):
        other, _ = factored_memory()
        network(item, user)
        network.load_state_dict(other.state_dict(), assign=assign)
        with pytest.raises(RuntimeError, match="call the network once before"):
            export()
    with torch.no_grad():
        network(item, user)
        network.block.keys.normal_()
    with pytest.raises(RuntimeError, match="call the network once before"):
        export()


def searches(graph: nn.Module) -> list[str]:
    """Operators of a graph, and of the graphs in it, that score keys."""
    targets = [
        str(node.target)
        for part in graph.modules()
        if isinstance(part, torch.fx.GraphModule)
        for node in part.graph.nodes
    ]
    return [name for name in targets if "axis_topk" in name or "matmul" in name]


def test_a_search_of_keys_is_seen_in_a_graph() -> None:
    class Search(nn.Module):
        def forward(self, codes: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
            return axis_topk(codes, keys, 2, metric="cosine").scores

    exported = torch.export.export(Search(), (torch.randn(4, 3), torch.randn(5, 3)))
    assert len(searches(exported.graph_module)) == 1


def test_addresses_are_the_same_under_autocast() -> None:
    network, ids = factored_memory()
    with torch.autocast("cpu", torch.bfloat16):
        under = network.pair_slots(*ids)
    network.load_state_dict(network.state_dict())  # the stored lists are void
    assert torch.equal(network.pair_slots(*ids).slots, under.slots)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_of_a_factored_memory_has_lists_of_its_own(copied: Callable[[Any], FactoredMemoryNetwork]) -> None:
    network, ids = factored_memory()
    features = network(*ids)
    other = copied(network)
    torch.testing.assert_close(other(*ids), features)
    with torch.no_grad():
        other.block.keys.normal_()
    assert not torch.equal(other.pair_slots(*ids).slots, network.pair_slots(*ids).slots)
    torch.testing.assert_close(network(*ids), features)


@pytest.mark.parametrize("assign", [False, True])
def test_a_factored_memory_built_on_meta_is_that_which_it_loads(assign: bool) -> None:
    network, ids = factored_memory()
    with torch.device("meta"):
        other = FactoredMemoryNetwork([30, 6], 11, code_dim=8, sub_keys=8, top_k=2)
    if not assign:
        other.to_empty(device="cpu")
        other.offsets.fill_(-7)  # as memory may be
    other.load_state_dict(network.state_dict(), assign=assign)
    torch.testing.assert_close(other(*ids), network(*ids))


def test_changed_codes_and_another_k_make_new_lists() -> None:
    network, ids = factored_memory()
    before = network.pair_slots(*ids).slots
    network.user_codes.copy_(network.user_codes.roll(1, 0))
    after = network.pair_slots(*ids).slots
    assert not torch.equal(before, after)
    network.block.top_k = 3
    assert network.pair_slots(*ids).slots.shape[2] == 3


@pytest.mark.parametrize("sparse_grad", [True, False])
def test_no_events_write_nothing(sparse_grad: bool) -> None:
    network = FactoredMemoryNetwork([30, 6], 11, sub_keys=8, sparse_grad=sparse_grad)
    rows = RowAdagrad(network.values_parameters(), lr=0.05) if sparse_grad else torch.optim.SGD([network.block.values])
    nothing = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    loss = network.losses(*nothing).answer
    loss.backward()
    rows.step()
    assert float(loss) == 0
    assert network.block.values.grad.is_sparse == sparse_grad  # type: ignore[union-attr]
    assert network.block.values.count_nonzero() == 0
    assert network(*nothing).shape == (0, network.signals)


def test_events_of_one_step_write_a_pair_once() -> None:
    """What the docstring of ``losses`` says of repeats: one step is one write, more steps write more."""
    features = []
    for steps in (1, 1, 4):
        network = FactoredMemoryNetwork([30], 11, sub_keys=8, marginals=False)
        rows = RowAdagrad(network.values_parameters(), lr=0.05)
        for _ in range(steps):
            repeats = 10 if not features else 1
            network.losses(torch.full((repeats, 1), 3), torch.full((repeats,), 7)).answer.backward()
            rows.step()
            rows.zero_grad()
        features.append(float(network(torch.tensor([[3]]), torch.tensor([7]))[0, 0]))
    assert features[0] == pytest.approx(0.1, rel=1e-3)  # 2 p after a step of 0.05
    assert features[1] == pytest.approx(features[0], rel=1e-3)
    assert 2 * features[0] < features[2] < 4 * features[0]
    network.reset_values()
    assert network(torch.tensor([[3]]), torch.tensor([7])).count_nonzero() == 0
