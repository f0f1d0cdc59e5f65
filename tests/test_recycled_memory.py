"""Memory of a freed gradient serves the next one, and never one that is still in use."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lmn_kernels import gather_aggregate
from lmn_kernels.gather_aggregate import recycled
from lmn_kernels.gather_aggregate.recycled import LEAST_BYTES, MOST_SPARE, recycled_empty

D = 64
ROWS = LEAST_BYTES // (4 * D)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    recycled._kept.clear()
    yield
    recycled._kept.clear()


def make(rows: int = ROWS, most_rows: int = ROWS) -> Tensor:
    return recycled_empty(rows, D, torch.float32, most_rows)


def test_freed_memory_is_used_again() -> None:
    first = make()
    place = first.data_ptr()
    del first
    second = make(ROWS // 2)  # another number of rows, the same bound
    assert second.data_ptr() == place
    assert second.shape == (ROWS // 2, D)


@pytest.mark.parametrize(
    "hold",
    [lambda x: x, lambda x: x[5:7], lambda x: x.view(-1), lambda x: x.numpy(), lambda x: x.detach().requires_grad_()],
    ids=["tensor", "slice", "view", "array", "detached"],
)
def test_memory_in_use_is_left_alone(hold) -> None:  # type: ignore[no-untyped-def]
    first = make()
    first.fill_(7.0)
    held = hold(first)
    place = first.data_ptr()
    del first
    gc.collect()
    second = make()
    assert second.data_ptr() != place
    second.fill_(-1.0)
    assert (torch.as_tensor(held) == 7).all()
    del held, second
    gc.collect()
    assert len(recycled._kept) == 1


def test_little_memory_and_memory_of_another_size_are_not_kept() -> None:
    small = make(10, ROWS - 1)
    del small
    assert not recycled._kept
    large = make(10, ROWS * (MOST_SPARE + 1))
    del large
    assert len(recycled._kept) == 1
    wanted = make()
    assert not recycled._kept
    del wanted
    assert [buffer.nbytes for buffer in recycled._kept] == [LEAST_BYTES]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_memory_serves_any_type(dtype: torch.dtype) -> None:
    place = (first := make()).data_ptr()
    del first
    second = recycled_empty(ROWS // 2, D, dtype, LEAST_BYTES // (D * dtype.itemsize))
    assert second.dtype == dtype
    assert second.shape == (ROWS // 2, D)
    assert second.data_ptr() == place


def test_gradients_of_several_steps_do_not_disturb_each_other() -> None:
    M, L = 40_000, 8
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(M, D, generator=generator, requires_grad=True)
    weights = torch.rand(4096, L, generator=generator)
    kept = []
    for step in range(4):
        slots = torch.randint(M, (4096, L), generator=generator)
        out = gather_aggregate(values, slots, weights, sparse_grad=True, backend="torch")
        (grad,) = torch.autograd.grad(out.sum(), values)
        expected = torch.zeros(M).index_add_(0, slots.view(-1), weights.view(-1)).unsqueeze(1).expand(M, D)
        kept.append((grad, expected))
        if step == 1:
            kept.pop(0)  # one gradient is freed while another lives
    for grad, expected in kept:
        torch.testing.assert_close(grad.to_dense(), expected)
    assert len({grad.coalesce().values().data_ptr() for grad, _ in kept}) == len(kept)
