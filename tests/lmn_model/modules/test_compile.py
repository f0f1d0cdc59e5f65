"""``torch.compile`` with its defaults: what is compiled, how often, and equal results."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import clear_compilation_metrics, counters, get_compilation_metrics

from lmn_kernels.optim import RowAdagrad, clip_grad_norm_
from lmn_model import FactoredMemoryNetwork, MemoryLayer
from lmn_model.modules.usage import MemoryUsage

BATCHES = {"torch": (6, 9, 13, 6, 31), "triton": (3, 5, 7)}  # the interpreter is slow


def forget_what_was_compiled() -> None:
    torch.compiler.reset()
    counters.clear()
    clear_compilation_metrics()


@pytest.fixture(autouse=True)
def _nothing_compiled() -> None:
    forget_what_was_compiled()


def compiled_frames() -> list[str]:
    """``file:function`` of each frame that Dynamo tried to compile."""
    frames = [metrics for metrics in get_compilation_metrics() if metrics.co_name]  # a backward pass has none
    return [f"{frame.co_filename}:{frame.co_name}" for frame in frames]


def compiled_in_ops() -> list[str]:
    return [frame for frame in compiled_frames() if "/lmn_kernels/" in frame and "/tests/" not in frame]


def small_layer(sparse_grad: bool = True, backend: str = "auto") -> MemoryLayer:
    return MemoryLayer(5, 7, sub_keys=6, top_k=3, key_dim=4, value_std=1.0, sparse_grad=sparse_grad, backend=backend)


def assert_same_parameters(ours: nn.Module, theirs: nn.Module) -> None:
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize("sparse_grad", [False, True])
def test_a_layer_is_one_graph_for_its_first_size_and_one_for_all_others(
    sparse_grad: bool, fullgraph: bool, backend: str, device: torch.device
) -> None:
    layer = small_layer(sparse_grad, backend).to(device)
    compiled = torch.compile(layer, fullgraph=fullgraph, backend="aot_eager")
    for call, B in enumerate(BATCHES[backend]):
        x = torch.randn(B, 5, device=device)
        with torch.compiler.set_stance("fail_on_recompile" if call >= 2 else "default"):
            output = compiled(x)
            grads = torch.autograd.grad(output.square().sum(), layer.parameters())
        expected = layer(x)
        torch.testing.assert_close(output, expected)
        for grad, eager in zip(grads, torch.autograd.grad(expected.square().sum(), layer.parameters()), strict=True):
            assert grad.layout == eager.layout
            assert not grad.is_sparse or grad.is_coalesced()
            torch.testing.assert_close(grad.to_dense(), eager.to_dense())
    assert len(compiled_frames()) == 2
    assert not compiled_in_ops()
    assert not counters["graph_break"]


def test_the_default_compiler_takes_a_layer_whole() -> None:
    layer = small_layer()
    compiled = torch.compile(layer)
    for B in BATCHES["torch"]:
        x = torch.randn(B, 5)
        with torch._inductor.config.patch(force_disable_caches=True):  # a cached graph has guards of its own
            output = compiled(x)
            output.square().sum().backward()
        torch.testing.assert_close(output, layer(x))
    assert layer.values.grad is not None
    assert layer.values.grad.is_sparse
    assert len(compiled_frames()) == 2


class BagLayer(nn.Module):
    """As many linear maps and norms as a memory has, and a table with a sparse gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.norm = nn.Linear(5, 8), nn.LayerNorm(4)
        self.bag = nn.EmbeddingBag(36, 4, mode="sum", sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        queries = self.norm(self.query(x).view(-1, 2, 4))
        return self.bag((queries.abs() * 10).long().flatten(1).clamp_max(35)) + queries.sum(1)


def whole_step(
    layer: nn.Module, table: Tensor, rows: torch.optim.Optimizer, *, clip: bool
) -> Callable[[Tensor], Tensor]:
    """A step of training: loss, gradients, clipping and the updates of the table and of everything else."""
    others = torch.optim.SGD([parameter for parameter in layer.parameters() if parameter is not table], lr=0.1)

    def step(x: Tensor) -> Tensor:
        loss = layer(x).square().mean()
        loss.backward()
        if clip:
            clip_grad_norm_(layer.parameters(), 0.5)
        for optimizer in (rows, others):
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    return step


def test_a_whole_step_compiles_as_that_of_an_embedding_bag(backend: str, device: torch.device) -> None:
    peer = BagLayer()
    sparse_adam = torch.optim.SparseAdam([peer.bag.weight])
    peer_step = torch.compile(whole_step(peer, peer.bag.weight, sparse_adam, clip=False), backend="aot_eager")
    for B in BATCHES[backend]:
        peer_step(torch.randn(B, 5))
    frames = len(compiled_frames())
    forget_what_was_compiled()

    layer = small_layer(backend=backend).to(device)
    eager = copy.deepcopy(layer)
    compiled_step, eager_step = (
        whole_step(each, each.values, RowAdagrad([each.values], lr=0.1, backend=backend), clip=True)
        for each in (layer, eager)
    )
    compiled_step = torch.compile(compiled_step, backend="aot_eager")
    for call, B in enumerate(BATCHES[backend]):
        x = torch.randn(B, 5, device=device)
        with torch.compiler.set_stance("fail_on_recompile" if call >= 2 else "default"):
            torch.testing.assert_close(compiled_step(x), eager_step(x))
    assert_same_parameters(layer, eager)
    assert not compiled_in_ops()
    assert len(compiled_frames()) <= frames + 2


def test_the_step_of_a_row_optimiser_runs_as_it_is_when_it_is_compiled() -> None:
    layer = small_layer()
    eager = copy.deepcopy(layer)
    optimizers = [RowAdagrad([each.values], lr=0.1) for each in (layer, eager)]
    for step, each in zip((torch.compile(optimizers[0].step), optimizers[1].step), (layer, eager), strict=True):
        torch.manual_seed(1)
        for B in BATCHES["torch"]:
            each(torch.randn(B, 5)).square().sum().backward()
            step()
            each.zero_grad()
    assert_same_parameters(layer, eager)
    assert not compiled_in_ops()


@pytest.mark.parametrize("sparse_grad", [False, True])
def test_a_backward_pass_that_is_compiled_alone_leaves_the_formulas_whole(sparse_grad: bool, backend: str) -> None:
    """Autograd calls the formulas while Dynamo is on."""
    layer = small_layer(sparse_grad, backend)
    eager = copy.deepcopy(layer)
    torch.compile(Tensor.backward, backend="aot_eager")(layer(torch.ones(3, 5)).square().sum())
    back = torch.compile(lambda loss: loss.backward(), backend="aot_eager")
    back(layer(torch.ones(3, 5)).square().sum())
    for _ in range(2):
        eager(torch.ones(3, 5)).square().sum().backward()
    assert layer.values.grad is not None
    assert eager.values.grad is not None
    torch.testing.assert_close(layer.values.grad.to_dense(), eager.values.grad.to_dense())
    assert not compiled_in_ops()


def test_a_factored_memory_compiles_frames_of_its_own_alone() -> None:
    network = FactoredMemoryNetwork([30, 6], 11, code_dim=8, sub_keys=8, top_k=2)
    nn.init.normal_(network.block.values)
    compiled = torch.compile(lambda *ids: network.losses(*ids).answer, backend="aot_eager")
    for call, B in enumerate(BATCHES["torch"]):
        ids = torch.stack((torch.randint(30, (B,)), torch.randint(6, (B,))), dim=1), torch.randint(11, (B,))
        with torch.compiler.set_stance("fail_on_recompile" if call >= 2 else "default"):
            loss = compiled(*ids)
            loss.backward()
        torch.testing.assert_close(loss, network.losses(*ids).answer)
    assert not compiled_in_ops()
    assert network.block.values.grad is not None
    assert network.block.values.grad.is_sparse


def test_counted_reads_break_the_graph_at_the_count_alone() -> None:
    layer, eager = small_layer(), small_layer()
    eager.load_state_dict(layer.state_dict())
    layer.usage, eager.usage = MemoryUsage(6), MemoryUsage(6)
    compiled = torch.compile(layer, backend="aot_eager")
    for step in range(20):  # more than the reads that wait to be counted
        x = torch.randn(3 + step % 5, 5)
        with torch.compiler.set_stance("fail_on_recompile" if step >= 2 else "default"):
            torch.testing.assert_close(compiled(x), eager(x))
        layer.usage.advance()
        eager.usage.advance()
    for name, counts in eager.usage.state().items():
        assert torch.equal(layer.usage.state()[name], counts), name
    assert not any("usage.py" in frame for frame in compiled_frames())
