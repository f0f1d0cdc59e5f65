"""``product_key_topk``: the oracle, gradients, types, shapes, order of ties and NaN, compilation and errors."""

from __future__ import annotations

import mmap
from functools import partial

import numpy as np
import pytest
import torch
from hardware import GPU, TRITON
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmn_kernels import product_key_topk
from lmn_kernels.launch import launch_counts
from lmn_kernels.product_key_topk.staircase import staircase
from lmn_kernels.testing import (
    assert_within_reference_error,
    brute_force_topk,
    grads_of,
    make_router_inputs,
    score_slots,
)

OPS = torch.ops.lmn_kernels
METRICS = ("dot", "cosine", "l2")
BACKENDS = ("torch", "triton") if TRITON else ("torch",)
SIZES_ON_GPU = ((7, 3, 2), (16, 8, 16), (17, 19, 5))
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def assert_equals_oracle(queries: Tensor, keys: Tensor, k: int, metric: str, backend: str) -> None:
    scores, slots = product_key_topk(queries, keys, k, metric=metric, backend=backend)
    true_scores, true_slots = brute_force_topk(queries, keys, k, metric)
    case = f"{list(queries.shape)} {list(keys.shape)} k={k} {metric} {queries.dtype}"
    assert slots.dtype == torch.int64
    assert torch.equal(slots, true_slots), case
    assert scores.dtype == true_scores.dtype
    assert torch.equal(scores, true_scores), case


def shapes_of_group(group: int) -> list[tuple[int, int, int, int, int]]:
    """Twenty-five shapes (B, H, N, C, K), the extreme ones among them in each group."""
    rng = np.random.default_rng(group)
    shapes = [(0, 2, 5, 3, 2), (2, 3, 1, 4, 1), (3, 1, 6, 2, 6), (2, 3, 9, 5, 1), (1, 1, 67, 3, 3)]
    while len(shapes) < 25:
        B, H, N, C = (int(size) for size in rng.integers([1, 1, 1, 1], [5, 4, 18, 20]))
        K = int(rng.integers(1, N + 1))
        if GPU:  # each (N, C, K) is compiled there, which takes seconds
            N, C, K = SIZES_ON_GPU[int(rng.integers(len(SIZES_ON_GPU)))]
        shapes.append((B, H, N, C, K))
    return shapes


@pytest.mark.parametrize("group", [0, 1, *(pytest.param(group, marks=pytest.mark.slow) for group in range(2, 8))])
def test_equals_the_oracle_exactly_on_integers_in_200_shapes(group: int, backend: str, device: torch.device) -> None:
    for case, (B, H, N, C, K) in enumerate(shapes_of_group(group)):
        metric, dtype = METRICS[(case + group) % 3], DTYPES[case % 4]
        queries, keys = make_router_inputs(B, H, N, C, dtype=dtype, device=device, ties=True, seed=100 * group + case)
        assert_equals_oracle(queries, keys, min(K, 5) if dtype == torch.float64 else K, metric, backend)


@pytest.mark.parametrize("metric", METRICS)
def test_gradcheck(metric: str, backend: str, device: torch.device) -> None:
    inputs = make_router_inputs(2, 1, 4, 2, dtype=torch.float64, requires_grad=True, device=device)

    def op(queries: Tensor, keys: Tensor) -> Tensor:
        return product_key_topk(queries, keys, 3, metric=metric, backend=backend).scores

    assert torch.autograd.gradcheck(op, tuple(inputs), fast_mode=backend == "triton" and metric != "l2")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_errs_no_more_than_plain_torch(dtype: torch.dtype, metric: str, backend: str, device: torch.device) -> None:
    inputs = make_router_inputs(6, 2, 33, 70, dtype=dtype, device=device, requires_grad=True)
    wide = tuple(x.detach().double().requires_grad_() for x in inputs)
    read = product_key_topk(*inputs, 9, metric=metric, backend=backend)
    plain, true = (score_slots(*x, read.slots, metric) for x in (inputs, wide))
    assert_within_reference_error(read.scores, plain, true, eps_band=16)
    best = score_slots(*wide, torch.arange(33 * 33, device=device).expand(6, 2, -1), metric).topk(9).values
    assert (true >= best[..., -1:] - 1e-4).all(), "a slot that was not chosen scores higher"
    triples = zip(grads_of(read.scores, *inputs), grads_of(plain, *inputs), grads_of(true, *wide), strict=True)
    for name, (grad, plain_grad, true_grad) in zip(inputs._fields, triples, strict=True):
        assert_within_reference_error(grad, plain_grad, true_grad, eps_band=16, name=f"gradient of {name}")


@pytest.mark.parametrize(
    ("B", "H", "N", "C", "K"),
    [(1, 1, 1, 1, 1), (17, 1, 3, 1, 3), (1, 1, 130, 65, 2), (1, 1, 90, 3, 90)],
)
def test_any_shape(B: int, H: int, N: int, C: int, K: int, backend: str, device: torch.device) -> None:
    queries, keys = make_router_inputs(B, H, N, C, device=device, ties=True, requires_grad=True)
    assert_equals_oracle(queries, keys, K, "l2", backend)


def test_inputs_need_not_be_contiguous(backend: str, device: torch.device) -> None:
    queries, keys = make_router_inputs(4, 2, 9, 6, device=device, ties=True)
    queries = queries.transpose(0, 3).contiguous().transpose(0, 3)
    for strided in (keys.transpose(2, 3).contiguous().transpose(2, 3), keys.repeat(1, 1, 2, 2)[:, :, ::2, ::2]):
        for metric in METRICS:
            assert_equals_oracle(queries, strided, 4, metric, backend)
            assert_equals_oracle(queries[:1].expand(3, -1, -1, -1), strided, 4, metric, backend)
    wide, other = queries.double(), keys.double().transpose(2, 3).contiguous().transpose(2, 3)
    assert_equals_oracle(wide, other, 4, "cosine", backend)


@pytest.mark.parametrize("needed", ["queries", "keys"])
def test_computes_nothing_for_a_frozen_input(needed: str, device: torch.device) -> None:
    pytest.importorskip("triton")
    inputs = make_router_inputs(3, 1, 6, 4, device=device)
    trainable = getattr(inputs, needed).requires_grad_()
    launch_counts.clear()
    read = product_key_topk(*inputs, 3, backend="triton")
    assert launch_counts == {"_product_key_topk_survivors_fwd_kernel": 1, "_product_key_topk_lists_fwd_kernel": 1}
    launch_counts.clear()
    (grad,) = grads_of(read.scores, trainable)
    steps = ("fwd",) if needed == "queries" else ("sort_keys", "bwd_entries")
    assert launch_counts == {
        "_product_key_topk_bwd_axes_kernel": 1,
        **{f"_gather_aggregate_{step}_kernel": 1 for step in steps},
    }
    torch.testing.assert_close(grad, *grads_of(score_slots(*inputs, read.slots), trainable))


@pytest.mark.parametrize("k", [4, 129])
def test_float64_and_a_large_k_take_the_search_kernels(k: int, device: torch.device) -> None:
    pytest.importorskip("triton")
    dtype = torch.float64 if k == 4 else torch.float32
    launch_counts.clear()
    assert_equals_oracle(*make_router_inputs(1, 1, 129, 1, dtype=dtype, device=device, ties=True), k, "dot", "triton")
    names = ("_product_key_topk_axis_search_fwd_kernel", "_product_key_topk_pairs_search_fwd_kernel")
    assert launch_counts == dict.fromkeys(names, 1)


SPECIAL = [0.0, -0.0, 1.0, -1.0, torch.inf, -torch.inf, torch.nan, 3e38, -3e38, 1e30]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_order_of_ties_nan_infinities_and_zeros(dtype: torch.dtype, device: torch.device, data: st.DataObject) -> None:
    N = data.draw(st.integers(2, 6))
    drawn = data.draw(st.lists(st.sampled_from(SPECIAL), min_size=2 * N, max_size=2 * N))
    queries = torch.tensor(data.draw(st.lists(st.sampled_from([1.0, 1.0, -1.0, torch.nan]), min_size=2, max_size=2)))
    queries, keys = queries.to(device, dtype).view(1, 1, 2, 1), torch.tensor(drawn).to(device, dtype).view(1, 2, N, 1)
    for backend in BACKENDS:
        assert_equals_oracle(queries, keys, N, "dot", backend)


def test_nan_never_escapes(backend: str, device: torch.device) -> None:
    for where in ("queries", "keys"):
        for metric in METRICS:
            inputs = make_router_inputs(3, 2, 6, 4, device=device)
            getattr(inputs, where)[0, 0] = torch.nan
            scores, slots = product_key_topk(*inputs, 6, metric=metric, backend=backend)
            assert not scores.isnan().any()
            assert ((slots >= 0) & (slots < 36)).all()
            assert (slots.sort(-1).values.diff(dim=-1) > 0).all()


def test_slots_differ_scores_descend_and_belong_to_their_slots(backend: str, device: torch.device) -> None:
    for metric in METRICS:
        inputs = make_router_inputs(8, 2, 20, 5, device=device)
        scores, slots = product_key_topk(*inputs, 12, metric=metric, backend=backend)
        assert (scores.diff(dim=-1) <= 0).all()
        assert (slots.sort(-1).values.diff(dim=-1) > 0).all()
        torch.testing.assert_close(scores, score_slots(*inputs, slots, metric), rtol=1e-5, atol=1e-5)


def test_near_ties_keep_every_bit_of_the_score(backend: str, device: torch.device) -> None:
    scores = torch.tensor([1.0] * 5).nextafter(torch.tensor([2.0, 0.0, 2.0, 0.0, 3.0]))
    keys = torch.stack((scores, torch.zeros(5))).view(1, 2, 5, 1).to(device)
    keys[0, 1, 1:] = -1
    read = product_key_topk(torch.ones(1, 1, 2, 1, device=device), keys, 5, backend=backend)
    assert read.scores[0, 0].tolist() == sorted(scores.tolist(), reverse=True)
    assert read.slots[0, 0].tolist() == [0, 10, 20, 5, 15]


def test_gradient_of_a_chosen_score_ignores_the_others(backend: str, device: torch.device) -> None:
    queries, keys = make_router_inputs(1, 1, 6, 3, device=device, requires_grad=True)
    read = product_key_topk(queries, keys, 1, backend=backend)
    (grad,) = torch.autograd.grad(read.scores.sum(), keys)
    slot = int(read.slots)
    assert grad[0].any(-1).nonzero().tolist() == [[0, slot // 6], [1, slot % 6]]


def test_backward_is_bitwise_repeatable(backend: str, device: torch.device) -> None:
    torch.use_deterministic_algorithms(False)  # the ops promise it by themselves
    inputs = make_router_inputs(20, 1, 6, 5, device=device, requires_grad=True)
    first, second = (grads_of(product_key_topk(*inputs, 4, backend=backend).scores, *inputs) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_second_derivative_is_refused(backend: str, device: torch.device) -> None:
    queries, keys = make_router_inputs(2, 1, 4, 3, device=device, requires_grad=True)
    scores, slots = product_key_topk(queries, keys, 2, backend=backend)
    assert not slots.requires_grad
    (grad,) = torch.autograd.grad(scores.square().sum(), queries, create_graph=True)
    with pytest.raises(RuntimeError, match="product_key_topk: there is no second derivative"):
        torch.autograd.grad(grad.sum(), keys)


def test_training_works_after_inference_mode(backend: str, device: torch.device) -> None:
    inputs = make_router_inputs(2, 1, 12, 3, device=device, requires_grad=True)
    with torch.inference_mode():
        product_key_topk(*inputs, 11, backend=backend)
    grads = grads_of(product_key_topk(*inputs, 11, backend=backend).scores, *inputs)
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize(("k", "pairs"), [(1, 1), (16, 50), (32, 119), (64, 280)])
def test_the_staircase_holds_the_pairs_that_can_win(k: int, pairs: int) -> None:
    ranks = staircase(k, torch.device("cpu"))
    assert ranks.shape == (2, pairs)
    assert int((ranks + 1).prod(0).max()) <= k


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_once_for_all_batch_sizes(compiler: str, backend: str, device: torch.device) -> None:
    if compiler == "inductor" and backend == "triton" and device.type == "cpu":
        pytest.skip("inductor is tried once on the CPU, with the torch backend")
    torch.compiler.reset()
    op = partial(product_key_topk, k=3, metric="cosine", backend=backend)
    compiled = torch.compile(op, fullgraph=True, backend=compiler)
    keys = make_router_inputs(1, 2, 6, 4, device=device, requires_grad=True).keys
    for B in (4, 7, 9):
        queries = make_router_inputs(B, 2, 6, 4, device=device, requires_grad=True, seed=B).queries
        with torch.compiler.set_stance("fail_on_recompile" if B == 9 else "default"):
            read = compiled(queries, keys)
            grads = grads_of(read.scores, queries, keys)
        eager = op(queries, keys)
        assert torch.equal(read.slots, eager.slots)
        torch.testing.assert_close(read.scores, eager.scores)
        torch.testing.assert_close(grads, grads_of(eager.scores, queries, keys))


def test_opcheck(backend: str, device: torch.device) -> None:
    queries, keys = make_router_inputs(3, 2, 5, 4, device=device, requires_grad=True)
    torch.library.opcheck(OPS.product_key_topk.default, (queries, keys, 3, "dot", backend))
    slots = torch.randint(25, (3, 2, 3), device=device)
    for metric, needs in (("dot", [True, True]), ("l2", [True, False]), ("cosine", [False, True])):
        arguments = (
            torch.randn(3, 2, 3, device=device),
            queries.detach(),
            keys.detach(),
            slots,
            torch.rand(3, 2, 3, device=device) if metric == "dot" else None,
            metric,
            "softmax" if metric == "dot" else "none",
            needs,
            backend,
        )
        torch.library.opcheck(OPS.product_key_topk_backward.default, arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_offsets_past_two_to_the_31(dtype: torch.dtype, backend: str) -> None:
    no_reserve = 0x4000  # MAP_NORESERVE on Linux: only touched pages exist
    pages = mmap.mmap(-1, (2**31 + 8) * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
    inputs = make_router_inputs(2, 1, 4, 3, dtype=dtype, ties=True)
    if backend == "triton" and torch.cuda.is_available():
        pytest.skip("the pages are the CPU's")
    queries = torch.frombuffer(pages, dtype=dtype).as_strided((2, 1, 2, 3), (2, 4, 1, 2**30)).copy_(inputs.queries)
    assert_equals_oracle(queries, inputs.keys, 3, "dot", backend)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"queries": 1}, TypeError, "queries must be a tensor [B, H, 2, C], got int"),
        (
            {"queries": torch.ones(3, 1, 2, 4).long()},
            TypeError,
            "queries must be float32, bfloat16, float16 or float64",
        ),
        ({"queries": torch.ones(3, 2, 4)}, ValueError, "queries must have shape [B, H, 2, C], got float32 [3, 2, 4]"),
        (
            {"queries": torch.ones(3, 1, 3, 4)},
            ValueError,
            "queries must have shape [B, H, 2, C], got float32 [3, 1, 3, 4]",
        ),
        (
            {"queries": torch.ones(3, 1, 2, 0), "keys": torch.ones(1, 2, 6, 0)},
            ValueError,
            "queries must have H >= 1 and",
        ),
        ({"keys": torch.ones(2, 6, 4)}, ValueError, "keys must have shape [H, 2, N, C], got float32 [2, 6, 4]"),
        (
            {"keys": torch.ones(2, 2, 6, 4)},
            ValueError,
            "keys must have shape [1, 2, N, 4] to fit queries float32 [3, 1",
        ),
        (
            {"keys": torch.ones(1, 2, 6, 4).half()},
            ValueError,
            "keys must have the type of queries, float32 [3, 1, 2, 4]",
        ),
        (
            {"keys": torch.ones(1, 2, 6, 4, device="meta")},
            ValueError,
            "keys must be on the device of queries, cpu, got meta",
        ),
        ({"k": 0}, ValueError, "k must lie in [1, N] with N = 6, got 0"),
        ({"k": 7}, ValueError, "k must lie in [1, N] with N = 6, got 7"),
        ({"k": 2.0}, TypeError, "k must be an int, got float"),
        ({"k": True}, TypeError, "k must be an int, got bool"),
        ({"metric": "l1"}, ValueError, "metric must be one of 'dot', 'cosine', 'l2', got 'l1'"),
        ({"backend": "cuda"}, ValueError, "backend must be one of 'auto', 'triton', 'torch', got 'cuda'"),
    ],
)
def test_errors_name_the_argument(
    changes: dict[str, object], error: type[Exception], message: str, compiled: bool
) -> None:
    arguments = make_router_inputs(3, 1, 6, 4)._asdict() | {"k": 3} | changes
    torch.compiler.reset()
    op = torch.compile(product_key_topk, backend="eager") if compiled else product_key_topk
    with pytest.raises(error) as caught:
        op(**arguments)
    assert str(caught.value).startswith(f"product_key_topk: {message}")


def test_a_squared_distance_is_never_negative(backend: str, device: torch.device) -> None:
    queries, keys = make_router_inputs(16, 1, 8, 12, device=device)
    keys[0, 0, 3] = queries[0, 0, 0]
    scores = product_key_topk(queries + 100, keys + 100, 8, metric="l2", backend=backend).scores
    assert (scores <= 0).all()
