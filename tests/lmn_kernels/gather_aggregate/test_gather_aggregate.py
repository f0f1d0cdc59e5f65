"""``gather_aggregate``: the oracle, gradients, types, shapes, slots that repeat, compilation, limits and errors."""

from __future__ import annotations

import mmap
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from bag_oracle import (
    BACKWARD_ENTRIES,
    BACKWARD_WEIGHTS,
    COUNT_RUNS,
    FORWARD,
    OPS,
    SORT,
    assert_equals_the_loops,
    loop_over_rows,
    loop_over_rows_backward,
)
from grids import grid
from hardware import GPU, TRITON
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmn_kernels import gather_aggregate
from lmn_kernels.launch import launch_counts, record_launches
from lmn_kernels.testing import BagInputs, assert_within_reference_error, grads_of, make_bag_inputs, sum_rows

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def random_bags(group: int, device: torch.device) -> list[BagInputs]:
    """Twenty-five small bags of integers, empty ones among them."""
    rng = np.random.default_rng(group)
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    bags = []
    for case in range(25):
        B, L, M, D = (int(size) for size in rng.integers([0, 0, 1, 0], [7, 7, 12, 40]))
        if GPU:  # each (L, D) is compiled there
            L, D = ((0, 3), (1, 33), (5, 16), (6, 7))[int(rng.integers(4))]
        types = {"dtype": dtypes[case % 4], "weights_dtype": dtypes[case // 4 % 4]}
        bags.append(make_bag_inputs(B, L, M, D, device=device, ties=True, requires_grad=True, seed=case, **types))
    return bags


@pytest.mark.parametrize("group", [0, 1, *(pytest.param(group, marks=pytest.mark.slow) for group in range(2, 8))])
def test_equals_the_loops_exactly_on_integers_in_200_shapes(group: int, backend: str, device: torch.device) -> None:
    for bag in random_bags(group, device):
        assert_equals_the_loops(bag, sparse_grad=group % 2 == 1, backend=backend)


def test_gradcheck_in_full(backend: str, device: torch.device) -> None:
    values, slots, weights = make_bag_inputs(3, 4, 5, 3, dtype=torch.float64, requires_grad=True, device=device)
    op = partial(gather_aggregate, slots=slots, backend=backend)
    assert torch.autograd.gradcheck(lambda values, weights: op(values, weights=weights), (values, weights))


@grid(
    dtype=[torch.float32, torch.bfloat16, torch.float16],
    weights_dtype=[torch.float32, torch.bfloat16, torch.float16],
    sparse_grad=[False, True],
)
def test_errs_no_more_than_plain_torch(
    dtype: torch.dtype, weights_dtype: torch.dtype, sparse_grad: bool, backend: str, device: torch.device
) -> None:
    bag = make_bag_inputs(6, 9, 20, 70, dtype=dtype, weights_dtype=weights_dtype, device=device, requires_grad=True)
    values, slots, weights = bag
    wide = (values.detach().double().requires_grad_(), slots, weights.detach().double().requires_grad_())
    out, plain, true = gather_aggregate(*bag, sparse_grad=sparse_grad, backend=backend), sum_rows(*bag), sum_rows(*wide)
    assert_within_reference_error(out, plain, true)
    triples = zip(
        grads_of(out, values, weights), grads_of(plain, values, weights), grads_of(true, wide[0], wide[2]), strict=True
    )
    for name, (grad, plain_grad, true_grad) in zip(("values", "weights"), triples, strict=True):
        assert_within_reference_error(grad.to_dense(), plain_grad, true_grad, name=f"gradient of the {name}")


@pytest.mark.parametrize(
    ("B", "L", "M", "D"),
    [
        (0, 3, 4, 5),
        (3, 0, 4, 5),
        (3, 2, 4, 0),
        (0, 0, 0, 0),
        (1, 1, 1, 1),
        (2, 37, 5, 3),
        (2, 3, 7, 300),
        (2, 17, 9, 513),
    ],
)
def test_any_shape(B: int, L: int, M: int, D: int, backend: str, device: torch.device) -> None:
    bag = make_bag_inputs(B, L, M, D, device=device, ties=True, requires_grad=True)
    for sparse_grad in (False, True):
        assert_equals_the_loops(bag, sparse_grad=sparse_grad, backend=backend)


@pytest.mark.parametrize("layout", ["transposed", "expanded", "sliced", "int32"])
def test_inputs_need_not_be_contiguous(layout: str, backend: str, device: torch.device) -> None:
    values, slots, weights = make_bag_inputs(4, 6, 9, 10, device=device, ties=True)
    strided = {
        "transposed": lambda x: x.t().contiguous().t(),
        "expanded": lambda x: x[:1].expand_as(x),
        "sliced": lambda x: x.repeat_interleave(2, 0).repeat_interleave(3, 1)[::2, ::3],
        "int32": lambda x: x if x.is_floating_point() else x.int(),
    }[layout]
    bag = BagInputs(strided(values).requires_grad_(), strided(slots), strided(weights).requires_grad_())
    out = gather_aggregate(*bag, backend=backend)
    torch.testing.assert_close(out.cpu().double(), loop_over_rows(bag), rtol=0, atol=0)
    for upstream in (
        torch.ones_like(out[:1, :1]).expand_as(out),
        torch.randint(-2, 3, out.shape, device=device).float().t().contiguous().t(),
    ):
        grads = torch.autograd.grad(out, (bag.values, bag.weights), upstream, retain_graph=True)
        for grad, truth in zip(grads, loop_over_rows_backward(bag, upstream), strict=True):
            torch.testing.assert_close(grad.cpu().double(), truth, rtol=0, atol=0)


@pytest.mark.parametrize("sparse_grad", [False, True])
@pytest.mark.parametrize("needed", [("values",), ("weights",), ("values", "weights")])
def test_computes_nothing_for_a_frozen_input(needed: tuple[str, ...], sparse_grad: bool, device: torch.device) -> None:
    pytest.importorskip("triton")
    bag = make_bag_inputs(3, 4, 9, 5, device=device)
    trainable = [getattr(bag, name).requires_grad_() for name in needed]
    launch_counts.clear()
    out = gather_aggregate(*bag, sparse_grad=sparse_grad, backend="triton")
    assert launch_counts == {FORWARD: 1}
    launch_counts.clear()
    grads = grads_of(out, *trainable)
    if needed == ("weights",):
        assert launch_counts == {BACKWARD_WEIGHTS: 1}, "no sort for the weights alone"
    else:
        both = {COUNT_RUNS: 1, **({BACKWARD_WEIGHTS: 1} if "weights" in needed else {})} if sparse_grad else {}
        assert launch_counts == {**SORT, **both, BACKWARD_ENTRIES: 1}, "a dense gradient and the weights' in one pass"
    for grad, plain in zip(grads, grads_of(sum_rows(*bag), *trainable), strict=True):
        torch.testing.assert_close(grad.to_dense(), plain)


def test_without_gradients_nothing_is_kept(backend: str, device: torch.device) -> None:
    out = gather_aggregate(*make_bag_inputs(3, 4, 9, 5, device=device), backend=backend)
    assert not out.requires_grad
    assert out.grad_fn is None


@settings(max_examples=12, deadline=None, derandomize=True)
@given(rows=st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), min_size=1, max_size=12))
def test_sparse_gradient_is_the_dense_one_in_ascending_rows(device: torch.device, rows: list[list[int]]) -> None:
    for backend in ("torch", "triton") if TRITON else ("torch",):
        slots = torch.tensor(rows, device=device)
        values = torch.arange(6 * 2.0, device=device).view(6, 2).requires_grad_()
        weights = torch.arange(1.0, slots.numel() + 1, device=device).view(slots.shape)
        dense, sparse = (
            grads_of(gather_aggregate(values, slots, weights, sparse_grad=sparse_grad, backend=backend), values)[0]
            for sparse_grad in (False, True)
        )
        assert sparse.is_coalesced()
        assert sparse.indices()[0].tolist() == sorted(set(slots.flatten().tolist()))
        assert torch.equal(sparse.to_dense(), dense)


@pytest.mark.parametrize("sparse_grad", [False, True])
def test_every_entry_may_name_one_slot_and_other_rows_get_zeros(
    sparse_grad: bool, backend: str, device: torch.device
) -> None:
    values, _, weights = make_bag_inputs(50, 7, 6, 5, device=device, ties=True, requires_grad=True)
    bag = BagInputs(values, torch.full((50, 7), 4, device=device), weights)
    out = gather_aggregate(*bag, sparse_grad=sparse_grad, backend=backend)
    (grad,) = torch.autograd.grad(out, values, torch.ones_like(out))
    truth, _ = loop_over_rows_backward(bag, torch.ones_like(out))
    torch.testing.assert_close(grad.to_dense().cpu().double(), truth, rtol=0, atol=0)
    untouched = grad.to_dense()[torch.arange(6) != 4]
    assert torch.count_nonzero(untouched) == 0


@pytest.mark.parametrize("sparse_grad", [False, True])
def test_backward_is_bitwise_repeatable(sparse_grad: bool, backend: str, device: torch.device) -> None:
    torch.use_deterministic_algorithms(False)  # the ops promise it by themselves
    bag = make_bag_inputs(40, 6, 5, 33, device=device, requires_grad=True)
    outs = [gather_aggregate(*bag, sparse_grad=sparse_grad, backend=backend) for _ in range(2)]
    assert torch.equal(*outs)
    for first, second in zip(*(grads_of(out, bag.values, bag.weights) for out in outs), strict=True):
        assert torch.equal(first.to_dense(), second.to_dense())


def test_two_losses_and_accumulation_give_equal_sums_dense_and_sparse(backend: str, device: torch.device) -> None:
    updates = []
    for sparse_grad in (False, True):
        values, slots, weights = make_bag_inputs(6, 3, 9, 4, device=device, requires_grad=True)
        for _ in range(2):  # gradient accumulation
            read = gather_aggregate(values, slots, weights, sparse_grad=sparse_grad, backend=backend)
            again = gather_aggregate(values, slots.flip(0), weights, sparse_grad=sparse_grad, backend=backend)
            (read.square().sum() + again.sum()).backward()  # two losses, the values used twice in a graph
        assert values.grad is not None
        updates.append((values.grad.to_dense(), weights.grad))
    torch.testing.assert_close(*updates)


@pytest.mark.parametrize("sparse_grad", [False, True])
def test_a_second_derivative_is_refused(sparse_grad: bool, backend: str, device: torch.device) -> None:
    values, slots, weights = make_bag_inputs(3, 4, 9, 5, device=device, requires_grad=True)
    out = gather_aggregate(values, slots, weights, sparse_grad=sparse_grad, backend=backend)
    for grad in torch.autograd.grad(out.square().sum(), (values, weights), create_graph=True):
        with pytest.raises(RuntimeError, match="gather_aggregate: there is no second derivative"):
            torch.autograd.grad(grad.to_dense().square().sum(), values, retain_graph=True)


@pytest.mark.parametrize("sparse_grad", [False, True])
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_once_for_all_batch_sizes(
    compiler: str, sparse_grad: bool, backend: str, device: torch.device
) -> None:
    if compiler == "inductor" and backend == "triton" and device.type == "cpu":
        pytest.skip("inductor is tried once on the CPU, with the torch backend")
    torch.compiler.reset()
    compiled = torch.compile(gather_aggregate, fullgraph=True, backend=compiler)
    values = make_bag_inputs(1, 1, 9, 5, device=device, requires_grad=True).values
    for B in (4, 7, 9):
        _, slots, weights = make_bag_inputs(B, 3, 9, 5, device=device, requires_grad=True, seed=B)
        stance = "fail_on_recompile" if B == 9 else "default"
        with torch.compiler.set_stance(stance):
            out = compiled(values, slots, weights, sparse_grad=sparse_grad, backend=backend)
            grads = grads_of(out, values, weights)
        eager = gather_aggregate(values, slots, weights, sparse_grad=sparse_grad, backend=backend)
        torch.testing.assert_close(out, eager)
        for grad, expected in zip(grads, grads_of(eager, values, weights), strict=True):
            assert grad.layout == expected.layout
            torch.testing.assert_close(grad.to_dense(), expected.to_dense())


def test_opcheck(backend: str, device: torch.device) -> None:
    values, slots, weights = make_bag_inputs(4, 6, 9, 5, device=device, requires_grad=True)
    for sparse_grad in (False, True):
        torch.library.opcheck(OPS.gather_aggregate.default, (values, slots, weights, sparse_grad, backend))
    arguments = (torch.randn(4, 5, device=device), values.detach(), slots, torch.bfloat16, backend)
    torch.library.opcheck(OPS.gather_aggregate_weights_backward.default, arguments)


def wide_buffer(elements: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A vector of which only touched pages exist."""
    if device.type == "cuda":
        torch.use_deterministic_algorithms(False)  # nothing fills it
        return torch.empty(elements, dtype=dtype, device=device)
    no_reserve = 0x4000  # MAP_NORESERVE on Linux
    pages = mmap.mmap(-1, elements * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
    return torch.frombuffer(pages, dtype=dtype)


@pytest.mark.xdist_group("gigabytes of a GPU")
@pytest.mark.parametrize("wide", ["values", "slots", "weights", "columns"])
def test_offsets_past_two_to_the_31(wide: str, backend: str, device: torch.device) -> None:
    values, slots, weights = make_bag_inputs(2, 4, 4, 3, dtype=torch.bfloat16, device=device, ties=True)
    slots = torch.tensor([[0, 1, 2, 3], [3, 3, 1, 0]], device=device, dtype=torch.int32)
    far = {"values": (values, (2**30, 1)), "columns": (values, (1, 2**30)), "slots": (slots, (1, 2**30))}
    source, stride = far.get(wide, (weights, (1, 2**30)))
    view = wide_buffer(3 * 2**30 + 8, source.dtype, device).as_strided(source.shape, stride).copy_(source)
    bag = BagInputs(*(view if x is source else x for x in (values, slots, weights)))
    bag.values.requires_grad_()
    bag.weights.requires_grad_()
    out = gather_aggregate(*bag, sparse_grad=True, backend=backend)
    torch.testing.assert_close(out.cpu().double(), loop_over_rows(bag), rtol=0, atol=0)
    grads = torch.autograd.grad(out, (bag.values, bag.weights), torch.ones_like(out))
    for grad, truth in zip(grads, loop_over_rows_backward(bag, torch.ones_like(out)), strict=True):
        torch.testing.assert_close(grad.to_dense().cpu().double(), truth, rtol=0, atol=0)


@pytest.mark.parametrize("slot", [-1, 9, 2**40])
def test_torch_refuses_a_slot_outside_the_table(slot: int, device: torch.device) -> None:
    values, slots, weights = make_bag_inputs(3, 4, 9, 5, device=device)
    slots[1, 2] = slot
    with pytest.raises(IndexError, match=rf"gather_aggregate: slots must lie in \[0, 9\), got {slot}"):
        gather_aggregate(values, slots, weights, backend="torch")


@pytest.mark.parametrize("slot", [-1, 9, 2**40])
def test_triton_reads_nothing_for_a_slot_outside_the_table(slot: int, device: torch.device) -> None:
    pytest.importorskip("triton")
    values, slots, weights = make_bag_inputs(3, 4, 9, 5, device=device, requires_grad=True)
    slots[1, 2] = slot
    out = gather_aggregate(values, slots, weights, backend="triton")
    assert out.isnan().all(1).tolist() == [False, True, False]
    grad_values, grad_weights = torch.autograd.grad(out, (values, weights), torch.ones_like(out))
    truth, _ = loop_over_rows_backward(
        BagInputs(values, slots % 9, weights * (slots % 9 == slots)), torch.ones_like(out)
    )
    torch.testing.assert_close(grad_values.cpu().double(), truth, check_dtype=False)
    assert grad_weights.isnan().nonzero().tolist() == [[1, 2]]
    out = gather_aggregate(values, slots, weights, sparse_grad=True, backend="triton")
    with pytest.raises(IndexError, match=rf"gather_aggregate: slots must lie in \[0, 9\), got {slot}"):
        torch.autograd.grad(out, values, torch.ones_like(out))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"values": [1.0]}, TypeError, "values must be a tensor [M, D], got list"),
        (
            {"values": torch.ones(9, 5).int()},
            TypeError,
            "values must be float32, bfloat16, float16 or float64 with shape",
        ),
        ({"values": torch.ones(9)}, ValueError, "values must have shape [M, D], got float32 [9]"),
        ({"slots": torch.ones(3, 4)}, TypeError, "slots must be int32 or int64 with shape [B, L], got float32 [3, 4]"),
        ({"slots": torch.ones(3).long()}, ValueError, "slots must have shape [B, L], got int64 [3]"),
        ({"weights": torch.ones(3, 4).long()}, TypeError, "weights must be float32, bfloat16, float16 or float64"),
        ({"weights": torch.ones(3, 5)}, ValueError, "weights must have the shape of slots, [3, 4], got [3, 5]"),
        ({"values": torch.ones(9, 5, device="meta")}, ValueError, "slots must be on the device of values, meta, got"),
        ({"backend": "cuda"}, ValueError, "backend must be one of 'auto', 'triton', 'torch', got 'cuda'"),
    ],
)
def test_errors_name_the_argument(
    changes: dict[str, object], error: type[Exception], message: str, compiled: bool
) -> None:
    arguments = make_bag_inputs(3, 4, 9, 5)._asdict() | changes
    torch.compiler.reset()
    op = torch.compile(gather_aggregate, backend="eager") if compiled else gather_aggregate
    with pytest.raises(error) as caught:
        op(**arguments)
    assert str(caught.value).startswith(f"gather_aggregate: {message}")


def test_under_fullgraph_the_message_of_a_check_is_in_the_compilers_error() -> None:
    torch.compiler.reset()
    compiled = torch.compile(gather_aggregate, fullgraph=True, backend="eager")
    with pytest.raises(Exception, match=r"weights must have the shape of slots, \[3, 2\], got \[3, 1\]"):
        compiled(torch.randn(4, 2), torch.zeros(3, 2, dtype=torch.int64), torch.randn(3, 1))


def test_many_slots_outside_the_table_cost_no_row_its_gradient(device: torch.device) -> None:
    pytest.importorskip("triton")
    values = torch.zeros(2, 3, device=device, requires_grad=True)
    slots = torch.tensor([[-1, 0, -7, 99], [1, 1, -3, 5]], device=device)
    out = gather_aggregate(values, slots, torch.ones(2, 4, device=device), backend="triton")
    (grad,) = torch.autograd.grad(out, values, torch.ones_like(out))
    assert grad.tolist() == [[1.0] * 3, [2.0] * 3]


def test_long_bags_keep_to_the_limits_of_a_grid() -> None:
    pytest.importorskip("triton")
    from lmn_kernels.gather_aggregate.triton import launch_gather_aggregate, launch_weights_backward

    with torch.device("meta"):
        values, slots, weights = (
            torch.empty(9, 256),
            torch.empty(2, 600_000, dtype=torch.int64),
            torch.empty(2, 600_000),
        )
    with record_launches() as launches:
        out = launch_gather_aggregate(values, slots, weights)
        launch_weights_backward(out, values, slots, torch.float32)
    assert [launch.grid[1:] for launch in launches] == [(1,), ()]  # a grid may be long on its first axis alone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparse_grad": "yes"}, "sparse_grad must be a bool, got 'yes'"),
        (
            {"values": torch.ones(9, 5).to_sparse()},
            r"values must be a dense tensor \[M, D\], got layout torch.sparse_coo",
        ),
    ],
)
def test_errors_of_flags_and_layouts(changes: dict[str, Any], message: str) -> None:
    bag = {"values": torch.ones(9, 5), "slots": torch.zeros(3, 4, dtype=torch.int64), "weights": torch.ones(3, 4)}
    with pytest.raises(TypeError, match=f"gather_aggregate: {message}"):
        gather_aggregate(**(bag | changes))
