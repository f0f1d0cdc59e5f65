"""Memories on two ranks: the recipes of docs/guides/distributed.md, and the message where there is none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from project_root import ROOT
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from lmn_kernels import gather_aggregate
from lmn_kernels.optim import RowAdagrad, clip_grad_norm_
from lmn_model import MemoryLayer, ProductKeyMemory

DOCS = (ROOT / "docs/guides/distributed.md").read_text(encoding="utf-8")
RANKS, ROWS, STEPS = 2, 6, 3
MESSAGE = r"sparse_grad must be False in DistributedDataParallel, .* docs/guides/distributed.md"

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="needs gloo")


def recipe() -> dict[str, Any]:
    """``wrap`` and ``average_rows`` of the docs."""
    (block,) = re.findall(r"<!-- ddp -->\n```python\n(.*?)```\n<!-- /ddp -->", DOCS, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "distributed.md", "exec"), names)
    return names


class Model(nn.Module):
    """A memory between dense layers."""

    def __init__(self, sparse_grad: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.memory = MemoryLayer(8, 4, sub_keys=4, top_k=2, key_dim=4, value_std=0.5, sparse_grad=sparse_grad)
        self.last = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.memory(self.first(x)))
        return output


def model(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return Model()


def batch(step: int) -> Tensor:
    return torch.randn(RANKS * ROWS, 8, generator=torch.Generator().manual_seed(step))


def optimizers(of: Model) -> tuple[torch.optim.Optimizer, ...]:
    dense = [parameter for parameter in of.parameters() if parameter is not of.memory.values]
    return torch.optim.SGD(dense, lr=0.1), RowAdagrad([of.memory.values], lr=0.1)


def alone() -> tuple[Model, list[Tensor]]:
    """One process on the joint batches: the model, and the gradient of the values of each step."""
    one, gradients = model(), []
    both = optimizers(one)
    for step in range(STEPS):
        one(batch(step)).square().mean().backward()
        assert one.memory.values.grad is not None
        gradients.append(one.memory.values.grad.to_dense())
        for optimizer in both:
            optimizer.step()
            optimizer.zero_grad()
    return one, gradients


def run(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, RANKS, is_master=rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    try:
        for check in CHECKS:
            check(rank)
    finally:
        dist.destroy_process_group()


def train(rank: int, one: Model, called: nn.Module) -> None:
    """Steps on this rank's share, compared with one process."""
    average_rows = recipe()["average_rows"]
    expected, gradients = alone()
    both = optimizers(one)
    for step in range(STEPS):
        called(batch(step)[rank * ROWS : (rank + 1) * ROWS]).square().mean().backward()
        average_rows(one.memory.values)
        assert one.memory.values.grad is not None
        torch.testing.assert_close(one.memory.values.grad.to_dense(), gradients[step], rtol=1e-4, atol=1e-6)
        for optimizer in both:
            optimizer.step()
            optimizer.zero_grad()
    for (name, left), right in zip(one.named_parameters(), expected.parameters(), strict=True):
        full = left.full_tensor() if hasattr(left, "full_tensor") else left
        torch.testing.assert_close(full, right, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    copies = [torch.empty_like(one.memory.values) for _ in range(RANKS)]
    dist.all_gather(copies, one.memory.values.detach())
    assert torch.equal(*copies)


def ddp_equals_one_process(rank: int) -> None:
    one = model(seed=rank)  # rank 0 gives its parameters and values to all
    train(rank, one, recipe()["wrap"](one, [one.memory.values]))


def fsdp_equals_one_process(rank: int) -> None:
    one = model()
    fully_shard(one, ignored_params={one.memory.values})
    train(rank, one, one)


def rows_of_some_ranks_are_averaged(rank: int) -> None:
    names = recipe()
    layer = ProductKeyMemory(3, sub_keys=2, top_k=1, value_std=1.0)
    assert names["wrap"](layer, [layer.values]) is not None  # a memory that is the model itself
    table = layer.values
    if rank == 1:
        slots, weights = torch.tensor([[1, 2], [2, 3]]), torch.ones(2, 2)
        gather_aggregate(table, slots, weights, sparse_grad=True).sum().backward()
    names["average_rows"](table)
    assert table.grad is not None
    assert table.grad.to_dense().tolist() == [[0.0] * 3, [0.5] * 3, [1.0] * 3, [0.5] * 3]
    clip_grad_norm_([table], 1.0)
    RowAdagrad([table], lr=0.1).step()


def sparse_gradients_in_ddp_say_what_to_do(rank: int) -> None:
    x = batch(0)
    ddp = DistributedDataParallel(model())
    with pytest.raises(RuntimeError, match=f"memory_lookup: {MESSAGE}"):
        ddp(x)
    with torch.no_grad():
        assert ddp(x).shape == (len(x), 1)
    dense = DistributedDataParallel(Model(sparse_grad=False))
    dense(x).sum().backward()


class Holder(nn.Module):
    """Values that an ``nn.EmbeddingBag`` owns, whose sparse gradients DDP exchanges."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(4, 3, mode="sum", sparse=True)

    def forward(self, slots: Tensor) -> Tensor:
        return gather_aggregate(self.bag.weight, slots, torch.ones(slots.shape), sparse_grad=True)


def values_of_an_embedding_bag_go_through_ddp(rank: int) -> None:
    holder = Holder()
    ddp = DistributedDataParallel(holder)
    ddp(torch.tensor([[rank, rank + 1]])).sum().backward()
    assert holder.bag.weight.grad is not None
    assert holder.bag.weight.grad.to_dense()[:, 0].tolist() == [0.5, 1.0, 0.5, 0.0]


CHECKS = (
    ddp_equals_one_process,
    fsdp_equals_one_process,
    rows_of_some_ranks_are_averaged,
    sparse_gradients_in_ddp_say_what_to_do,
    values_of_an_embedding_bag_go_through_ddp,
)


def test_two_ranks() -> None:
    """All checks in one pair of processes, which take long to start."""
    port = dist.TCPStore("127.0.0.1", 0, 1, is_master=True, wait_for_workers=False).port
    torch.multiprocessing.spawn(run, (port,), nprocs=RANKS)


def test_reads_outside_ddp_are_let_be() -> None:
    outside = model()
    outside(batch(0)).sum().backward()
    assert all(each.grad is not None for each in outside.parameters())


def test_the_message_of_one_rank_and_none_without_an_exchange(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        layer = MemoryLayer(4, 4, sub_keys=4, top_k=2, backend="torch")
        wrapped = DistributedDataParallel(layer)
        for _ in range(2):  # the second answer is a kept one
            with pytest.raises(RuntimeError, match=MESSAGE):
                wrapped(torch.randn(3, 4))
        with wrapped.no_sync():
            wrapped(torch.randn(3, 4))
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(layer, ["values", ".values"])
        ignoring = DistributedDataParallel(layer)
        ignoring(torch.randn(3, 4)).sum().backward()
        assert layer.values.grad is not None
        assert layer.values.grad.is_sparse
    finally:
        dist.destroy_process_group()
