"""Updates in place raise the version of what they write, so that autograd finds a graph that needs the old numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from optimizers_factory import OPTIMIZERS, D, M, make, rows_of
from torch import Tensor, nn

from lmn_kernels import gather_aggregate, memory_lookup
from lmn_kernels.optim import clip_grad_norm_

MODIFIED = "modified by an inplace operation"


@pytest.fixture(params=OPTIMIZERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def read(values: Tensor, device: torch.device) -> Tensor:
    """A read whose backward pass needs the values: the weights take a gradient."""
    slots = torch.tensor([[1, 4], [4, 7]], device=device)
    weights = torch.ones(2, 2, device=device, requires_grad=True)
    return gather_aggregate(values, slots, weights, sparse_grad=True, backend="torch").sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_second_backward_of_an_older_graph_raises(
    kind: str, dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    """As with ``torch.optim.SGD``; bfloat16 tables are rounded stochastically."""
    table = nn.Parameter(torch.randn(M, D, device=device).to(dtype))
    loss = read(table, device)
    loss.backward(retain_graph=True)
    make(kind, [table], backend).step()
    with pytest.raises(RuntimeError, match=MODIFIED):
        loss.backward()


def test_a_second_backward_raises_after_torchs_own_optimiser_too(device: torch.device) -> None:
    table = nn.Parameter(torch.randn(M, D, device=device))
    loss = read(table, device)
    loss.backward(retain_graph=True)
    torch.optim.SGD([table], lr=0.1).step()
    with pytest.raises(RuntimeError, match=MODIFIED):
        loss.backward()


def test_a_graph_of_the_fused_lookup_and_of_a_view_raises_too(kind: str, backend: str, device: torch.device) -> None:
    values = nn.Parameter(torch.randn(16, D, device=device))
    queries = torch.randn(3, 1, 2, 2, device=device, requires_grad=True)
    keys = torch.randn(1, 2, 4, 2, device=device)
    losses = [
        memory_lookup(queries, keys, values, 2, sparse_grad=True, backend="torch").output.sum(),
        (values[3:5] * torch.ones(2, D, device=device, requires_grad=True)).sum(),
    ]
    losses[0].backward(retain_graph=True)
    make(kind, [values], backend).step()
    for loss in losses:
        with pytest.raises(RuntimeError, match=MODIFIED):
            loss.backward()


def test_every_step_raises_the_version_of_the_table_and_its_state(
    kind: str, backend: str, device: torch.device
) -> None:
    table = nn.Parameter(torch.randn(M, D, device=device))
    optimizer = make(kind, [table], backend)
    seen: dict[str, int] = {}
    for _ in range(3):
        table.grad = rows_of(torch.tensor([1, 4, 1], device=device), torch.ones(3, D, device=device))
        optimizer.step()
        versions = {name: tensor._version for name, tensor in optimizer.state[table].items()}
        versions["table"] = table._version
        assert all(version > seen.get(name, 0) for name, version in versions.items())
        seen = versions


def test_rows_of_tables_made_in_inference_mode_are_updated(kind: str, backend: str, device: torch.device) -> None:
    """They have no version to raise."""
    with torch.inference_mode():
        table = torch.ones(M, D, device=device)
        optimizer = make(kind, [table], backend)
        table.grad = rows_of(torch.tensor([1], device=device), torch.ones(1, D, device=device))
        optimizer.step()
    assert (table != 1).any(1).nonzero()[:, 0].tolist() == [1]


def test_a_step_without_rows_lets_an_older_graph_be(kind: str, backend: str, device: torch.device) -> None:
    table = nn.Parameter(torch.randn(M, D, device=device))
    loss = read(table, device)
    loss.backward(retain_graph=True)
    before = copy.deepcopy(table.grad)
    table.grad = rows_of(torch.empty(0, dtype=torch.int64, device=device), torch.empty(0, D, device=device))
    make(kind, [table], backend).step()
    table.grad = None
    loss.backward()
    assert table.grad is not None
    assert before is not None
    assert torch.equal(table.grad.to_dense(), before.to_dense())


def test_clipping_raises_the_version_of_a_dense_gradient() -> None:
    dense = nn.Parameter(torch.zeros(3))
    dense.grad = torch.ones(3)
    factor = torch.ones(3, requires_grad=True)
    loss = (dense.grad * factor).sum()
    clip_grad_norm_([dense], 0.5)
    with pytest.raises(RuntimeError, match=MODIFIED):
        loss.backward()
