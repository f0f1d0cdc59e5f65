"""``memory_lookup``: the whole read against its parts, gradients, types, selection, compilation and errors."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from grids import grid
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lmn_kernels import memory_lookup
from lmn_kernels.launch import launch_counts, record_launches
from lmn_kernels.testing import (
    assert_within_reference_error,
    brute_force_topk,
    grads_of,
    make_memory_inputs,
    score_slots,
    sum_rows,
)

METRICS = ("dot", "cosine", "l2")
ACTIVATIONS = ("softmax", "sigmoid", "relu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
ROUTER = {"_product_key_topk_survivors_fwd_kernel": 1, "_product_key_topk_lists_fwd_kernel": 1}
BAG = "_gather_aggregate_fwd_kernel"
SORT = {"_gather_aggregate_sort_keys_kernel": 1}


def weigh(scores: Tensor, activation: str) -> Tensor:
    """The textbook activations."""
    return scores.softmax(-1) if activation == "softmax" else getattr(scores, activation)()


def plain_read(
    queries: Tensor, keys: Tensor, values: Tensor, slots: Tensor, metric: str, activation: str
) -> tuple[Tensor, Tensor]:
    """Output and weights for given slots, in plain torch."""
    weights = weigh(score_slots(queries, keys, slots, metric), activation)
    return sum_rows(values, slots.flatten(1), weights.flatten(1)), weights


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("metric", METRICS)
def test_reads_the_slots_of_the_oracle(metric: str, activation: str, backend: str, device: torch.device) -> None:
    for B, H, N, C, K, D in (
        (3, 2, 7, 4, 5, 3),
        (2, 3, 4, 1, 4, 9),
        (0, 1, 3, 2, 2, 5),
        (1, 1, 1, 1, 1, 1),
        (2, 1, 5, 3, 1, 0),
    ):
        inputs = make_memory_inputs(B, H, N, C, D, device=device, ties=True)
        read = memory_lookup(*inputs, K, metric=metric, activation=activation, backend=backend)
        scores, slots = brute_force_topk(inputs.queries, inputs.keys, K, metric)
        assert torch.equal(read.slots, slots)
        weights = weigh(scores, activation)
        torch.testing.assert_close(read.weights, weights)
        torch.testing.assert_close(read.output, sum_rows(inputs.values, slots.flatten(1), weights.flatten(1)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("metric", METRICS)
def test_gradcheck(metric: str, activation: str, backend: str, device: torch.device) -> None:
    inputs = make_memory_inputs(2, 1, 3, 2, 2, dtype=torch.float64, requires_grad=True, device=device)

    def op(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        read = memory_lookup(queries, keys, values, 2, metric=metric, activation=activation, backend=backend)
        return read.output, read.weights

    assert torch.autograd.gradcheck(op, tuple(inputs), fast_mode=backend == "triton")


@grid(
    dtype=[torch.float32, torch.bfloat16, torch.float16],
    values_dtype=[torch.float32, torch.bfloat16, torch.float16],
    activation=ACTIVATIONS,
)
def test_errs_no_more_than_plain_torch(
    dtype: torch.dtype, values_dtype: torch.dtype, activation: str, backend: str, device: torch.device
) -> None:
    metric = METRICS[ACTIVATIONS.index(activation)]
    inputs = make_memory_inputs(
        4, 2, 9, 7, 20, dtype=dtype, values_dtype=values_dtype, device=device, requires_grad=True
    )
    wide = tuple(x.detach().double().requires_grad_() for x in inputs)
    sparse_grad = activation == "relu"
    read = memory_lookup(*inputs, 5, metric=metric, activation=activation, sparse_grad=sparse_grad, backend=backend)
    assert read.output.dtype == values_dtype
    plain, plain_weights = plain_read(*inputs, read.slots, metric, activation)
    true, true_weights = plain_read(*wide, read.slots, metric, activation)
    assert_within_reference_error(read.output, plain, true, eps_band=4)
    assert_within_reference_error(read.weights, plain_weights, true_weights, eps_band=16, name="weights")
    triples = zip(grads_of(read.output, *inputs), grads_of(plain, *inputs), grads_of(true, *wide), strict=True)
    for name, (grad, plain_grad, true_grad) in zip(inputs._fields, triples, strict=True):
        assert grad.is_sparse == (sparse_grad and name == "values")
        assert_within_reference_error(grad.to_dense(), plain_grad, true_grad, eps_band=16, name=f"gradient of {name}")


@pytest.mark.parametrize("needed", ["queries", "keys", "values"])
def test_computes_nothing_for_frozen_inputs(needed: str, device: torch.device) -> None:
    pytest.importorskip("triton")
    inputs = make_memory_inputs(3, 1, 6, 4, 5, device=device)
    trainable = getattr(inputs, needed).requires_grad_()
    launch_counts.clear()
    read = memory_lookup(*inputs, 3, backend="triton")
    assert launch_counts == {**ROUTER, BAG: 1}, "a read is three launches"
    launch_counts.clear()
    (grad,) = grads_of(read.output, trainable)
    dots, sums = {"_gather_aggregate_bwd_weights_kernel": 1}, {**SORT, "_gather_aggregate_bwd_entries_kernel": 1}
    axes = {"_product_key_topk_bwd_axes_kernel": 1}
    assert (
        launch_counts == {"queries": {**dots, **axes, BAG: 1}, "keys": {**dots, **axes, **sums}, "values": sums}[needed]
    )
    plain, _ = plain_read(*inputs, read.slots, "dot", "softmax")
    torch.testing.assert_close(grad, *grads_of(plain, trainable))


def test_inputs_need_not_be_contiguous(backend: str, device: torch.device) -> None:
    queries, keys, values = make_memory_inputs(4, 2, 6, 5, 8, device=device)
    turned = (queries.transpose(0, 3).contiguous().transpose(0, 3), keys.transpose(1, 2).contiguous().transpose(1, 2))
    for metric in METRICS:
        strided = [x.requires_grad_() for x in (*turned, values.t().contiguous().t())]
        packed = [x.detach().contiguous().requires_grad_() for x in strided]
        one, other = (memory_lookup(*inputs, 3, metric=metric, backend=backend) for inputs in (strided, packed))
        assert torch.equal(one.slots, other.slots)
        torch.testing.assert_close(one.output, other.output)
        torch.testing.assert_close(grads_of(one.output, *strided), grads_of(other.output, *packed))


@pytest.mark.parametrize(
    ("scores", "weights"),
    [
        ([100.0, 0.0, 1.0, 2.0], [1, 0, 0, 0]),
        ([1e30, -1e30, 3e38, 0.0], [1, 0, 0, 0]),
        ([torch.inf, 0.0, torch.inf, 1.0], [0.5, 0.5, 0, 0]),
        ([-torch.inf] * 4, [0.25] * 4),
        ([torch.nan] * 4, [0.25] * 4),
        ([torch.nan, 0.0, -torch.inf, 0.0], [0.5, 0.5, 0, 0]),
    ],
)
def test_softmax_is_never_nan(scores: list[float], weights: list[float], backend: str, device: torch.device) -> None:
    for dtype in (torch.float32, torch.float64):
        queries = torch.ones(1, 1, 2, 1, device=device, dtype=dtype)
        keys = torch.zeros(1, 2, 4, 1, device=device, dtype=dtype)
        keys[0, 0, :, 0] = torch.tensor(scores, dtype=dtype)
        queries[0, 0, 1] = 0
        keys[0, 1, 1:] = torch.nan  # one column is left to choose
        values = torch.eye(16, 4, device=device)
        read = memory_lookup(queries, keys, values, 4, backend=backend)
        assert not read.weights.isnan().any()
        assert float(read.weights.sum()) == pytest.approx(1)
        if not any(score != score for score in scores):
            assert read.weights[0, 0].tolist() == pytest.approx(weights)


def test_gradients_reach_queries_and_keys_through_weights_alone(backend: str, device: torch.device) -> None:
    inputs = make_memory_inputs(3, 2, 6, 4, 5, device=device, requires_grad=True)
    read = memory_lookup(*inputs, 3, backend=backend)
    assert not read.slots.requires_grad
    _, plain = plain_read(*inputs, read.slots, "dot", "softmax")
    torch.testing.assert_close(grads_of(read.weights, *inputs[:2]), grads_of(plain, *inputs[:2]))


def test_backward_is_bitwise_repeatable(backend: str, device: torch.device) -> None:
    torch.use_deterministic_algorithms(False)  # the ops promise it by themselves
    inputs = make_memory_inputs(20, 2, 6, 4, 5, device=device, requires_grad=True)
    first, second = (grads_of(memory_lookup(*inputs, 3, backend=backend).output, *inputs) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_two_losses_and_accumulation_give_equal_sums_dense_and_sparse(backend: str, device: torch.device) -> None:
    updates = []
    for sparse_grad in (False, True):
        inputs = make_memory_inputs(4, 1, 6, 4, 5, device=device, requires_grad=True)
        for _ in range(2):
            read = memory_lookup(*inputs, 3, sparse_grad=sparse_grad, backend=backend)
            again = memory_lookup(inputs.queries.flip(0), *inputs[1:], 3, sparse_grad=sparse_grad, backend=backend)
            (read.output.square().sum() + again.output.sum()).backward()
        updates.append([x.grad.to_dense() for x in inputs if x.grad is not None])
        assert len(updates[-1]) == 3
    torch.testing.assert_close(*updates)


def test_a_second_derivative_is_refused(backend: str, device: torch.device) -> None:
    inputs = make_memory_inputs(3, 1, 6, 4, 5, device=device, requires_grad=True)
    read = memory_lookup(*inputs, 3, backend=backend)
    for grad in torch.autograd.grad(read.output.square().sum(), inputs, create_graph=True):
        with pytest.raises(RuntimeError, match="memory_lookup: there is no second derivative"):
            torch.autograd.grad(grad.square().sum(), inputs.queries, retain_graph=True)


@pytest.mark.parametrize("sparse_grad", [False, True])
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_once_for_all_batch_sizes(
    compiler: str, sparse_grad: bool, backend: str, device: torch.device
) -> None:
    if compiler == "inductor" and (sparse_grad or (backend == "triton" and device.type == "cpu")):
        pytest.skip("inductor is tried once")
    torch.compiler.reset()
    op = partial(memory_lookup, k=3, sparse_grad=sparse_grad, backend=backend)
    compiled = torch.compile(op, fullgraph=True, backend=compiler)
    _, keys, values = make_memory_inputs(1, 2, 6, 4, 5, device=device, requires_grad=True)
    for B in (4, 7, 9):
        queries = make_memory_inputs(B, 2, 6, 4, 5, device=device, requires_grad=True, seed=B).queries
        with torch.compiler.set_stance("fail_on_recompile" if B == 9 else "default"):
            read = compiled(queries, keys, values)
            grads = grads_of(read.output, queries, keys, values)
        eager = op(queries, keys, values)
        assert torch.equal(read.slots, eager.slots)
        torch.testing.assert_close(read.output, eager.output)
        for grad, expected in zip(grads, grads_of(eager.output, queries, keys, values), strict=True):
            assert grad.layout == expected.layout
            torch.testing.assert_close(grad.to_dense(), expected.to_dense())


@pytest.mark.parametrize("sparse_grad", [False, True])
def test_opcheck(sparse_grad: bool, backend: str, device: torch.device) -> None:
    inputs = make_memory_inputs(4, 2, 5, 3, 6, device=device, requires_grad=True)
    torch.library.opcheck(
        torch.ops.lmn_kernels.memory_lookup.default, (*inputs, 3, "l2", "sigmoid", sparse_grad, backend)
    )


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"queries": None}, TypeError, "queries must be a tensor [B, H, 2, C], got NoneType"),
        ({"keys": torch.ones(1, 2, 6, 3)}, ValueError, "keys must have shape [1, 2, N, 4] to fit queries float32"),
        ({"values": torch.ones(36)}, ValueError, "values must have shape [M, D], got float32 [36]"),
        ({"values": torch.ones(35, 5)}, ValueError, "values must have M = N * N = 36 rows for N = 6 sub-keys, got"),
        ({"values": torch.ones(36, 5).long()}, TypeError, "values must be float32, bfloat16, float16 or float64 with"),
        ({"values": torch.ones(36, 5, device="meta")}, ValueError, "values must be on the device of queries, cpu, got"),
        ({"k": 7}, ValueError, "k must lie in [1, N] with N = 6, got 7"),
        ({"metric": "l1"}, ValueError, "metric must be one of 'dot', 'cosine', 'l2', got 'l1'"),
        ({"activation": "tanh"}, ValueError, "activation must be one of 'softmax', 'sigmoid', 'relu', got 'tanh'"),
        ({"backend": "cuda"}, ValueError, "backend must be one of 'auto', 'triton', 'torch', got 'cuda'"),
    ],
)
def test_errors_name_the_argument(
    changes: dict[str, object], error: type[Exception], message: str, compiled: bool
) -> None:
    arguments = make_memory_inputs(3, 1, 6, 4, 5)._asdict() | {"k": 3} | changes
    torch.compiler.reset()
    op = torch.compile(memory_lookup, backend="eager") if compiled else memory_lookup
    with pytest.raises(error) as caught:
        op(**arguments)
    assert str(caught.value).startswith(f"memory_lookup: {message}")


class _LargestOutput(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any torch op makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor) and not func.is_view:
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("metric", METRICS)
def test_the_triton_path_materialises_neither_gathered_rows_nor_pairs_nor_scores(metric: str) -> None:
    pytest.importorskip("triton")
    from lmn_kernels.gather_aggregate.triton import launch_values_backward
    from lmn_kernels.memory_lookup.triton import launch_memory_lookup
    from lmn_kernels.product_key_topk.triton import launch_product_key_topk_backward

    B, N, C, K, D = 4096, 256, 8, 32, 64
    with torch.device("meta"):
        queries, keys, values = torch.empty(B, 1, 2, C), torch.empty(1, 2, N, C), torch.empty(N * N, D)
    with record_launches() as launches, _LargestOutput() as read:
        output, slots, weights = launch_memory_lookup(queries, keys, values, K, metric, "softmax")
        launch_product_key_topk_backward(weights, queries, keys, slots, weights, metric, "softmax", (True, True))
    with record_launches() as more, _LargestOutput() as backward:
        launch_values_backward(output, slots.flatten(1), weights.flatten(1), N * N, torch.float32, values)
    assert launches
    assert more
    assert B * D <= read.elements < min(B * K * D, B * K * K, B * 2 * N)
    assert backward.elements == N * N * D < B * K * D, "nothing is larger than the dense gradient"
