"""The sorted backward pass of ``gather_aggregate``: sort, runs cut by chunks, determinism, launches, CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from bag_oracle import (
    BACKWARD_ENTRIES,
    BACKWARD_PARTS,
    BACKWARD_WEIGHTS,
    CHUNK,
    COUNT_RUNS,
    OPS,
    SORT,
    assert_equals_the_loops,
)
from hardware import GPU
from torch import Tensor

from lmn_kernels import gather_aggregate
from lmn_kernels.gather_aggregate import api
from lmn_kernels.launch import launch_counts, record_launches
from lmn_kernels.testing import BagInputs, grads_of, make_bag_inputs

SORT_BLOCK = 1024


def bag_of(slots: Tensor, M: int, D: int, device: torch.device) -> BagInputs:
    """Integers for values and weights, and these slots."""
    values, _, weights = make_bag_inputs(*slots.shape, M, D, device=device, ties=True, requires_grad=True)
    return BagInputs(values, slots.to(device), weights)


@pytest.mark.parametrize(
    ("M", "width"),
    [(1, torch.int16), (2**15 - 1, torch.int16), (2**15, torch.int32), (2**31 - 1, torch.int32), (2**31, torch.int64)],
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("entries", [1, SORT_BLOCK - 1, SORT_BLOCK, SORT_BLOCK + 1])
def test_sort_is_stable_and_its_keys_are_narrow(
    M: int, width: torch.dtype, dtype: torch.dtype, entries: int, device: torch.device
) -> None:
    pytest.importorskip("triton")
    from lmn_kernels.gather_aggregate.triton.sort import sort_entries

    slots = torch.randint(min(M, 2**31 - 1), (entries, 1), device=device).to(dtype)
    slots[::3] = slots[0].clone()  # repeats, whose order is that of the entries
    keys, order = slots.reshape(-1).sort(stable=True)
    ours = sort_entries(slots, M)
    assert ours.slots.dtype == width
    assert torch.equal(ours.slots[:entries].long(), keys.long())
    assert torch.equal(ours.order[:entries], order)
    assert (ours.slots[entries:] == M).all()
    assert (ours.order[entries:] >= entries).all()


def test_sort_puts_slots_outside_the_table_last(device: torch.device) -> None:
    pytest.importorskip("triton")
    from lmn_kernels.gather_aggregate.triton.sort import sort_entries

    for stray, M in ((-1, 9), (9, 9), (2**40, 9), (-(2**40), 2**31 + 5), (2**31 + 5, 2**31 + 5)):
        slots = torch.tensor([[5, 0], [stray, 5]], device=device)
        entries = sort_entries(slots, M)
        assert entries.slots[:5].tolist() == [0, 5, 5, M, M]
        assert entries.order[:4].tolist() == [1, 0, 3, 2]


def test_wide_numbers_give_the_same_gradients(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from lmn_kernels.gather_aggregate import triton as kernels
    from lmn_kernels.gather_aggregate.triton import sort

    for module in (kernels.sorted_backward, kernels.sparse_grad):
        monkeypatch.setattr(module, "MAX_INT32_ENTRIES", 8)
    monkeypatch.setattr(sort, "narrowest", lambda largest: torch.int64)
    bag = bag_of(torch.randint(9, (40, 5)), 9, 5, device)
    for sparse_grad in (False, True):
        assert_equals_the_loops(bag, sparse_grad=sparse_grad, backend="triton")


RUNS: dict[str, Callable[[], Tensor]] = {
    "end_at_every_border": lambda: torch.arange(4 * CHUNK) // CHUNK,
    "end_at_every_second_border": lambda: torch.arange(4 * CHUNK) // (2 * CHUNK),
    "straddle_every_border": lambda: (torch.arange(4 * CHUNK) + CHUNK // 2) // CHUNK,
    "one_for_each_entry": lambda: torch.arange(2 * CHUNK + 1),
    "end_just_before_and_after": lambda: torch.cat(
        [torch.full((length,), slot) for slot, length in enumerate((CHUNK - 1, 2, CHUNK - 1, CHUNK + 1, 1, CHUNK))]
    ),
    "hot_between_cold": lambda: torch.cat((torch.arange(30), torch.full((5 * CHUNK,), 30), torch.arange(31, 60))),
    "one_of_all": lambda: torch.zeros(3 * CHUNK + 7, dtype=torch.int64),
    "fill_a_sort_block": lambda: torch.arange(SORT_BLOCK) // 700,
    "three_levels": lambda: torch.cat((torch.zeros(10), torch.ones(34 * CHUNK), torch.arange(2, 9))).long(),
}


@pytest.mark.parametrize(("runs", "D"), [*((runs, 3) for runs in RUNS), ("end_just_before_and_after", 130)])
def test_runs_of_any_length_are_summed_exactly(runs: str, D: int, device: torch.device) -> None:
    """Chunks side by side in a program where rows are narrow, one in each where they are wide."""
    pytest.importorskip("triton")
    slots = RUNS[runs]()
    shuffled = slots[torch.randperm(slots.numel())].unsqueeze(1)
    launch_counts.clear()
    assert_equals_the_loops(bag_of(shuffled, int(slots.max()) + 2, D, device), sparse_grad=False, backend="triton")
    chunks = -(-slots.numel() // CHUNK)
    assert launch_counts[BACKWARD_PARTS] == (0 if chunks == 1 else 1 if 2 * chunks <= CHUNK else 2)


def test_rows_too_wide_for_one_program_take_two_passes(device: torch.device) -> None:
    pytest.importorskip("triton")
    bag = make_bag_inputs(2, 2, 4, 9_000, dtype=torch.float64, device=device, ties=True, requires_grad=True)
    for sparse_grad in (False, True):
        launch_counts.clear()
        assert_equals_the_loops(bag, sparse_grad=sparse_grad, backend="triton")
        assert launch_counts[BACKWARD_WEIGHTS] == launch_counts[BACKWARD_ENTRIES] == 1


def backward_bits(bag: BagInputs, sparse_grad: bool, backend: str) -> list[Tensor]:
    """Gradients of values and weights of a bag read anew."""
    out = gather_aggregate(*bag, sparse_grad=sparse_grad, backend=backend)
    return [grad.to_dense() for grad in grads_of(out, bag.values, bag.weights)]


def test_twenty_runs_on_three_slots_give_the_same_bits(backend: str, device: torch.device) -> None:
    size = (4096, 32) if GPU else (23, 3)
    values, _, weights = make_bag_inputs(*size, 9, 33 if GPU else 4, device=device, requires_grad=True)
    bag = BagInputs(values, torch.randint(3, size, device=device) * 4, weights)
    first = backward_bits(bag, False, backend)
    for run in range(1, 20):
        again = backward_bits(bag, run % 2 == 1, backend)  # dense and sparse sums are the same sums
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("sparse_grad", [False, True])
def test_deterministic_mode_takes_the_sorted_pass_which_the_default_takes_too(
    sparse_grad: bool, device: torch.device
) -> None:
    pytest.importorskip("triton")
    bag = make_bag_inputs(30, 3, 5, 6, device=device, requires_grad=True)
    runs = {COUNT_RUNS: 1, BACKWARD_WEIGHTS: 1} if sparse_grad else {}
    bits = []
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        launch_counts.clear()
        bits.append(backward_bits(bag, sparse_grad, "triton"))
        del launch_counts["_gather_aggregate_fwd_kernel"]
        assert launch_counts == {**SORT, **runs, BACKWARD_ENTRIES: 1, BACKWARD_PARTS: 1}
    assert all(torch.equal(one, other) for one, other in zip(*bits, strict=True))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dots", [False, True])
def test_opcheck(dots: bool, padded: bool, backend: str, device: torch.device) -> None:
    values, slots, weights = make_bag_inputs(4, 6, 9, 5, device=device)
    grad, table = torch.randn(4, 5, device=device), values if dots else None
    for op, arguments in (
        (OPS.gather_aggregate_values_backward, (grad, table, slots, weights, 9, torch.bfloat16, backend)),
        (OPS.gather_aggregate_touched_rows, (grad, table, slots, weights, 9, torch.bfloat16, padded, backend)),
    ):
        torch.library.opcheck(op.default, arguments)


def test_a_captured_sparse_gradient_is_padded_to_an_equal_sum(
    backend: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = make_bag_inputs(5, 4, 9, 3, device=device, ties=True, requires_grad=True)
    coalesced, *_ = grads_of(gather_aggregate(*bag, sparse_grad=True, backend=backend), bag.values)
    monkeypatch.setattr(api, "_is_capturing", lambda device: True)
    out = gather_aggregate(*bag, sparse_grad=True, backend=backend)
    padded, grad_weights = grads_of(out, bag.values, bag.weights)
    assert not padded.is_coalesced()
    assert padded._nnz() == 5 * 4 > coalesced._nnz()
    assert set(padded._indices()[0].tolist()) == set(coalesced.indices()[0].tolist())
    assert torch.count_nonzero(padded._values()[coalesced._nnz() :]) == 0
    assert torch.equal(padded.to_dense(), coalesced.to_dense())
    torch.testing.assert_close(grad_weights, grads_of(out, bag.weights)[0])


def test_padded_rows_of_slots_outside_the_table_have_no_gradient(device: torch.device) -> None:
    pytest.importorskip("triton")
    from lmn_kernels.gather_aggregate.triton import launch_touched_rows

    slots = torch.tensor([[3, -1], [9, 3]], device=device)
    grad, weights = torch.ones(2, 5, device=device), torch.ones(2, 2, device=device)
    rows, sums, _ = launch_touched_rows(grad, slots, weights, 9, torch.float32, padded=True)
    dense = torch.zeros(9, 5, device=device).index_add_(0, rows, sums)
    assert dense[3].tolist() == [2.0] * 5
    assert torch.count_nonzero(dense) == 5


@pytest.mark.parametrize("needed", [("values",), ("weights",), ("values", "weights")])
def test_no_step_reads_a_number_on_the_host(needed: tuple[str, ...]) -> None:
    """A meta tensor has no number to read."""
    pytest.importorskip("triton")
    from lmn_kernels.gather_aggregate.triton import (
        launch_gather_aggregate,
        launch_touched_rows,
        launch_values_backward,
        launch_weights_backward,
    )

    with torch.device("meta"):
        values, slots, weights = torch.empty(999, 8), torch.empty(500, 7, dtype=torch.int64), torch.empty(500, 7)
    with record_launches() as launches:
        grad = launch_gather_aggregate(values, slots, weights)
        table = values if "weights" in needed else None
        if "values" in needed:
            launch_values_backward(grad, slots, weights, 999, torch.float32, table)
            rows, *_ = launch_touched_rows(grad, slots, weights, 999, torch.float32, table, padded=True)
            assert rows.shape == (3500,)
        else:
            launch_weights_backward(grad, values, slots, torch.float32)
    assert len(launches) == (2 if needed == ("weights",) else 1 + 2 * (1 + 1 + 2) + 1 + ("weights" in needed))


@pytest.mark.gpu
@pytest.mark.parametrize("sparse_grad", [False, True])
def test_a_captured_step_equals_an_eager_one(sparse_grad: bool, device: torch.device) -> None:
    torch.use_deterministic_algorithms(False)  # nothing fills memory in the graph
    values, slots, weights = make_bag_inputs(300, 8, 500, 64, device=device, requires_grad=True)

    def step() -> tuple[Tensor, ...]:
        return grads_of(gather_aggregate(values, slots, weights, sparse_grad=sparse_grad), values, weights)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    slots.copy_(make_bag_inputs(300, 8, 500, 64, device=device, seed=1).slots)
    graph.replay()
    for grad, eager in zip(captured, step(), strict=True):
        assert torch.equal(grad.to_dense(), eager.to_dense())
