"""``axis_topk`` and ``combine_axes``: loops over every key and pair, ties, NaN and infinities, tracing and errors."""

from __future__ import annotations

import doctest
import math
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lmn_kernels import AxisTopK, axis_topk, combine_axes, product_key_topk
from lmn_kernels.testing import brute_force_topk, make_router_inputs

OPS = torch.ops.lmn_kernels
METRICS = ("dot", "cosine", "l2")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def axis_lists(queries: Tensor, keys: Tensor, k: int, metric: str, head: int) -> list[AxisTopK]:
    return [axis_topk(queries[:, head, axis], keys[head, axis], k, metric=metric) for axis in (0, 1)]


def ranked(scores: list[float]) -> list[int]:
    """Places by the contract: a higher score first, NaN last, then the lower place."""
    return sorted(range(len(scores)), key=lambda n: (math.isnan(scores[n]), -scores[n], n))


def combined_by_hand(first: AxisTopK, second: AxisTopK, sub_keys: int) -> tuple[list[float], list[int]]:
    """All pairs of one list of each axis: a higher sum, then the lower rank on axis 0, then on axis 1."""
    pairs = []
    for rank_0, (a, i) in enumerate(zip(first.scores.tolist(), first.sub_keys.tolist(), strict=True)):
        for rank_1, (b, j) in enumerate(zip(second.scores.tolist(), second.sub_keys.tolist(), strict=True)):
            is_nan = math.isnan(a) or math.isnan(b)
            total = -math.inf if -math.inf in (a, b) else a + b
            pairs.append((is_nan, 0.0 if is_nan else -total, rank_0, rank_1, i * sub_keys + j))
    best = sorted(pairs)[: len(first.scores)]
    return [-math.inf if is_nan else -total for is_nan, total, *_ in best], [slot for *_, slot in best]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("B", "N", "C", "k"), [(7, 9, 3, 4), (0, 5, 2, 3), (5, 1, 4, 1), (6, 6, 2, 6), (40, 67, 5, 1)])
def test_a_list_is_that_of_a_loop_over_all_keys_ties_included(
    B: int, N: int, C: int, k: int, dtype: torch.dtype, metric: str
) -> None:
    queries, keys = make_router_inputs(B, 1, N, C, dtype=dtype, ties=True, seed=B + N)
    scores, sub_keys = axis_topk(queries[:, 0, 0], keys[0, 0], k, metric=metric)
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert sub_keys.dtype == torch.int64
    assert scores.shape == sub_keys.shape == (B, k)
    for row in range(B):
        every = axis_topk(queries[row, 0, :1], keys[0, 0], N, metric=metric)
        by_key = every.scores[0][every.sub_keys[0].argsort()].tolist()  # the score of each key
        assert sub_keys[row].tolist() == ranked(by_key)[:k]
        q, wide = queries[row, 0, 0].double(), keys[0, 0].double()
        expected = {
            "dot": wide @ q,
            "cosine": nn.functional.cosine_similarity(wide, q.expand_as(wide), dim=-1),
            "l2": -(wide - q).square().sum(-1),
        }[metric]
        torch.testing.assert_close(torch.tensor(by_key).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("H", "k"), [(1, 1), (2, 3), (1, 8)])
def test_two_lists_combined_are_the_slots_of_the_router(H: int, k: int, metric: str) -> None:
    queries, keys = make_router_inputs(11, H, 17, 4, ties=True, seed=k)
    expected = product_key_topk(queries, keys, k, metric=metric, backend="torch")
    true_scores, true_slots = brute_force_topk(queries, keys, k, metric)
    for head in range(H):
        scores, slots = combine_axes(*axis_lists(queries, keys, k, metric, head), 17)
        assert torch.equal(slots, expected.slots[:, head])
        assert torch.equal(scores, expected.scores[:, head])
        assert torch.equal(slots, true_slots[:, head])
        assert torch.equal(scores, true_scores[:, head])


@pytest.mark.parametrize("k", [1, 2, 5, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairs_are_those_of_a_loop_over_all_pairs(k: int, dtype: torch.dtype) -> None:
    shape = (3, 4, k)
    values = torch.tensor([2.0, 1.0, 1.0, 0.0, -1.0, math.inf, -math.inf, math.nan], dtype=dtype)
    generator = torch.Generator().manual_seed(k)
    lists = []
    for _ in range(2):
        scores = values[torch.randint(len(values), shape, generator=generator)]
        order = scores.nan_to_num(nan=-math.inf).argsort(dim=-1, descending=True, stable=True)
        scores = scores.gather(-1, order)
        scores = torch.where(scores.isnan(), torch.nan, scores)
        places = torch.stack([torch.randperm(40, generator=generator)[:k] for _ in range(12)]).view(shape)
        lists.append(AxisTopK(_nan_last(scores), places))
    found = combine_axes(*lists, 40)
    assert found.scores.dtype == dtype
    for row in range(3):
        for column in range(4):
            first, second = (AxisTopK(*(each[row, column] for each in one)) for one in lists)
            scores, slots = combined_by_hand(first, second, 40)
            assert found.slots[row, column].tolist() == slots
            assert found.scores[row, column].tolist() == scores


def _nan_last(scores: Tensor) -> Tensor:
    """Descending lists with NaN behind -inf, as ``axis_topk`` gives them."""
    order = scores.isnan().long().argsort(dim=-1, stable=True)
    return scores.gather(-1, order)


def test_keys_of_nan_come_last_and_keep_their_order() -> None:
    keys = torch.tensor([[3.0], [math.nan], [1.0], [-math.inf], [math.nan]])
    scores, sub_keys = axis_topk(torch.ones(2, 1), keys, 5)
    assert sub_keys.tolist() == [[0, 2, 3, 1, 4]] * 2
    assert scores[0].isnan().tolist() == [False, False, False, True, True]
    combined = combine_axes(AxisTopK(scores, sub_keys), AxisTopK(scores, sub_keys), 5)
    assert not combined.scores.isnan().any()
    assert len(set(combined.slots[0].tolist())) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_rows_are_taken_in_chunks(dtype: torch.dtype) -> None:
    queries, keys = torch.randint(-2, 3, (1100, 3)).to(dtype), torch.randint(-2, 3, (4096, 3)).to(dtype)
    scores, sub_keys = axis_topk(queries, keys, 3)
    order = (queries @ keys.T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(sub_keys, order.indices[:, :3])
    assert torch.equal(scores, order.values[:, :3])


def test_lists_are_the_same_under_autocast_and_have_no_gradient() -> None:
    queries, keys = torch.randn(300, 16, requires_grad=True), torch.randn(64, 16, requires_grad=True)
    plain = axis_topk(queries, keys, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal((queries @ keys.T).argmax(1), plain.sub_keys[:, 0])
        under = axis_topk(queries, keys, 4)
    assert torch.equal(under.sub_keys, plain.sub_keys)
    assert torch.equal(under.scores, plain.scores)
    assert not plain.scores.requires_grad


def test_opcheck() -> None:
    torch.library.opcheck(OPS.axis_topk.default, (torch.randn(5, 3), torch.randn(7, 3), 2, "cosine"))
    lists = axis_topk(torch.randn(5, 3), torch.randn(7, 3), 2)
    torch.library.opcheck(OPS.combine_axes.default, (*lists, *lists, 7))


class TwoSteps(nn.Module):
    def forward(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        lists = axis_topk(queries, keys, 2, metric="l2")
        return combine_axes(lists, lists, 7)


def test_a_graph_keeps_both_whole_and_any_batch() -> None:
    inputs = torch.randn(5, 3), torch.randn(7, 3)
    sizes = ({0: torch.export.Dim("batch", min=2, max=512)}, None)
    exported = torch.export.export(TwoSteps(), inputs, dynamic_shapes=sizes)
    targets = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert {"lmn_kernels.axis_topk.default", "lmn_kernels.combine_axes.default"} <= targets
    other = torch.randn(9, 3), inputs[1]
    calls: list[Callable[..., tuple[Tensor, ...]]] = [exported.module(), torch.compile(TwoSteps(), fullgraph=True)]
    for call in calls:
        for found, expected in zip(call(*other), TwoSteps()(*other), strict=True):
            assert torch.equal(found, expected)


def test_tensors_without_data_give_shapes() -> None:
    with FakeTensorMode():
        fake = TwoSteps()(torch.randn(5, 3), torch.randn(7, 3))
    meta = TwoSteps()(torch.randn(5, 3, device="meta"), torch.randn(7, 3, device="meta"))
    for scores, slots in (fake, meta):
        assert scores.shape == slots.shape == (5, 2)
        assert (scores.dtype, slots.dtype) == (torch.float32, torch.int64)


LIST = AxisTopK(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: axis_topk(torch.zeros(3), torch.zeros(4, 3), 1), ValueError, r"queries must have shape \[B, C\]"),
        (lambda: axis_topk(torch.zeros(2, 3), torch.zeros(4, 2), 1), ValueError, "keys must have the C >= 1 columns"),
        (lambda: axis_topk(torch.zeros(2, 3), torch.zeros(4, 3).half(), 1), ValueError, "and the type of queries"),
        (lambda: axis_topk(torch.zeros(2, 3), torch.zeros(4, 3), 5), ValueError, r"k must lie in \[1, N\] with N = 4"),
        (lambda: axis_topk(torch.zeros(2, 3), torch.zeros(4, 3), 1.0), TypeError, "k must be an int, got float"),
        (lambda: axis_topk(torch.zeros(2, 3), torch.zeros(4, 3), 1, metric="l1"), ValueError, "metric must be one of"),
        (lambda: combine_axes(LIST, AxisTopK(*(x[:1] for x in LIST)), 4), ValueError, r"one shape \[..., K\]"),
        (lambda: combine_axes(LIST, AxisTopK(LIST.scores.double(), LIST.sub_keys), 4), ValueError, "one type of score"),
        (lambda: combine_axes(LIST, AxisTopK(LIST.scores.half(), LIST.sub_keys), 4), TypeError, "float32 or float64"),
        (lambda: combine_axes(LIST, LIST, 0), ValueError, "sub_keys must be at least 1, got 0"),
    ],
)
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_the_examples_run() -> None:
    assert doctest.testmod(sys.modules["lmn_kernels.product_key_topk.axes"]).failed == 0


def test_lists_that_are_no_tensors_are_named() -> None:
    scores, sub_keys = torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"combine_axes: second\.sub_keys must be a tensor, got list"):
        combine_axes(AxisTopK(scores, sub_keys), AxisTopK(scores, [[0, 1]]), 4)  # type: ignore[arg-type]
