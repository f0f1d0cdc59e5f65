"""Memory of a freed gradient serves the next one, and never one that is still in use."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from lmn_kernels import empty_cache, gather_aggregate
from lmn_kernels.gather_aggregate import recycled
from lmn_kernels.gather_aggregate.recycled import MAX_KEPT, MAX_SPARE, MIN_BYTES, recycled_empty

D = 64
ROWS = MIN_BYTES // (4 * D)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    empty_cache()
    yield
    empty_cache()


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
    [
        lambda x: x,
        lambda x: x[5:7],
        lambda x: x.view(-1),
        lambda x: x.numpy(),
        lambda x: x.detach().requires_grad_(),
        lambda x: torch.sparse_coo_tensor(torch.arange(ROWS)[None], x, (ROWS, D), check_invariants=False).to_dense,
        lambda x: torch.empty(0).set_(x.untyped_storage()),
    ],
    ids=["tensor", "slice", "view", "array", "detached", "sparse", "storage"],
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
    assert (torch.as_tensor(held() if callable(held) else held) == 7).all()
    del held, second
    gc.collect()
    assert len(recycled._kept) == 2


def test_little_memory_is_not_kept() -> None:
    small = make(10, ROWS - 1)
    del small
    assert not recycled._kept


def test_several_sizes_and_several_at_once_find_their_memory_again() -> None:
    def step() -> set[int]:
        held = [make(), make(), make(5 * ROWS, 5 * ROWS)]
        return {tensor.data_ptr() for tensor in held}

    first = step()
    assert len(first) == 3
    assert step() == first
    assert step() == first


def test_a_buffer_far_too_large_is_left_for_others() -> None:
    large = make(10, ROWS * (MAX_SPARE + 1))
    place = large.data_ptr()
    del large
    small = make()
    assert small.data_ptr() != place
    again = make(10, ROWS * (MAX_SPARE + 1))
    assert again.data_ptr() == place


def test_no_more_than_a_few_buffers_are_kept_and_all_can_be_given_back() -> None:
    held = [make() for _ in range(MAX_KEPT + 2)]
    del held
    assert len(recycled._kept) == MAX_KEPT
    empty_cache()
    assert not recycled._kept


def test_more_rows_than_announced_get_their_memory() -> None:
    assert make(ROWS + 3, ROWS).shape == (ROWS + 3, D)


def test_threads_never_share_memory() -> None:
    def work(mark: float) -> bool:
        for _ in range(40):
            mine = make()
            mine.fill_(mark)
            if not bool((mine == mark).all()):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(1, 5)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_memory_serves_any_type(dtype: torch.dtype) -> None:
    place = (first := make()).data_ptr()
    del first
    second = recycled_empty(ROWS // 2, D, dtype, MIN_BYTES // (D * dtype.itemsize))
    assert second.dtype == dtype
    assert second.shape == (ROWS // 2, D)
    assert second.data_ptr() == place


def test_gradients_of_several_steps_do_not_disturb_each_other() -> None:
    M, L = 40_000, 8
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(M, D, generator=generator, requires_grad=True)
    weights = torch.rand(4096, L, generator=generator)
    kept = []
    places = []
    for step in range(4):
        slots = torch.randint(M, (4096, L), generator=generator)
        out = gather_aggregate(values, slots, weights, sparse_grad=True, backend="torch")
        (grad,) = torch.autograd.grad(out.sum(), values)
        expected = torch.zeros(M).index_add_(0, slots.view(-1), weights.view(-1)).unsqueeze(1).expand(M, D)
        kept.append((grad, expected))
        places.append(grad._values().data_ptr())
        if step == 1:
            del grad
            kept.pop(0)  # one gradient is freed while another lives
    assert places[2] == places[0]
    for grad, expected in kept:
        torch.testing.assert_close(grad.to_dense(), expected)
    assert len(set(places[1:])) == len(kept)
