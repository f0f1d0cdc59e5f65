"""The router's fast path against the oracle: many blocks of sub-keys, both tiles of rows, every kind of overflow."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton")

from lmn_kernels import product_key_topk
from lmn_kernels.launch import Launch, launch_counts, record_launches
from lmn_kernels.product_key_topk import triton as router
from lmn_kernels.product_key_topk.triton import launchers
from lmn_kernels.testing import brute_force_topk

N = 448  # seven blocks of sub-keys: one more than a column's register holds


@pytest.fixture(params=["float32", "few rows of bfloat16", "many rows of bfloat16"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """The type that takes each tile of rows in turn, whatever their number."""
    monkeypatch.setattr(launchers, "FEW_ROWS", 0 if "many" in request.param else launchers.FEW_ROWS)
    return torch.float32 if request.param == "float32" else torch.bfloat16


def inputs_with_scores(first: Tensor, second: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Queries and keys (C = 1, H = 1) whose scores on the two axes are ``first`` and ``second``, in every row.

    In bfloat16 they are those scores rounded, which are exact again.
    """
    queries, keys = torch.ones(2, 1, 2, 1, device=first.device), torch.stack((first, second))[None, :, :, None]
    return queries.to(dtype), keys.to(dtype)


def survivors_of(queries: Tensor, keys: Tensor, k: int) -> Tensor:
    """How many entries the first kernel writes for each axis and row."""
    with record_launches() as launches:
        router.launch_product_key_topk(queries, keys, k, "dot")
    first = launches[0]
    assert isinstance(first, Launch)
    first.kernel[first.grid](*first.args, **first.meta)
    counts = first.args[5]
    assert isinstance(counts, Tensor)
    return counts


def assert_exact(queries: Tensor, keys: Tensor, k: int) -> None:
    scores, slots = product_key_topk(queries, keys, k, backend="triton")
    true_scores, true_slots = brute_force_topk(queries, keys, k, "dot")
    assert torch.equal(slots, true_slots)
    assert torch.equal(scores, true_scores)


def patterns() -> dict[str, Tensor]:
    ramp = torch.arange(N, dtype=torch.float32)
    group = torch.where(torch.arange(N) % 64 == 5, ramp + 1000, ramp % 50)
    heavy = torch.where(torch.arange(N) % 64 < 6, 500 - ramp % 64 + ramp // 64 * 0.5, ramp % 7)
    outlier = (torch.arange(N) * 37 % N).float()
    outlier[77] = 1e30
    ties = (torch.arange(N) * 37 % 11).float()
    infinite = torch.where(torch.arange(N) % 20 == 0, -ramp, -torch.inf)
    nan = torch.where(torch.arange(N) % 20 == 0, ramp, torch.nan)
    top = torch.where(torch.arange(N) % 3 == 0, torch.inf, ramp)
    return {
        "constant": torch.ones(N),
        "rising": ramp,
        "falling": -ramp,
        "one dominant group": group,
        "few dominant groups": heavy,
        "outlier": outlier,
        "ties": ties,
        "mostly -inf": infinite,
        "mostly NaN": nan,
        "many +inf": top,
        "all NaN": torch.full((N,), torch.nan),
    }


PATTERNS = patterns()


@pytest.mark.parametrize("name", PATTERNS)
def test_is_exact_where_a_register_or_a_list_overflows(name: str, dtype: torch.dtype, device: torch.device) -> None:
    usual = (torch.arange(N) * 37 % N).float()
    assert_exact(*inputs_with_scores(PATTERNS[name].to(device), usual.to(device), dtype), 32)
    assert_exact(*inputs_with_scores(usual.to(device), PATTERNS[name].to(device), dtype), 5)


def survivors_by_hand(scores: Tensor, k: int) -> Tensor:
    """Which scores reach the bound that six steps of bisection find from the best of each of 64 columns."""
    best = scores.view(-1, 64).max(0).values
    bound, above = best.min(), best.max()
    for _ in range(6):
        middle = 0.5 * (bound + above)
        enough = int((best >= middle).sum()) >= k
        bound, above = (middle, above) if enough else (bound, middle)
    return scores >= bound


def test_patterns_take_the_paths_they_are_meant_for(device: torch.device) -> None:
    paths: dict[str, set[str]] = {}
    for name, scores in PATTERNS.items():
        found = survivors_of(*inputs_with_scores(scores.to(device), PATTERNS["rising"].to(device)), 32)
        if scores.isfinite().all():
            reached = survivors_by_hand(scores, 32)
            count = int(reached.sum())
            path = "one window" if count <= 64 else "two windows" if count <= 96 else "streaming"
            if count <= 96 and reached.view(-1, 64).sum(0).max() > 6:
                paths.setdefault("crowded", set()).add(name)
        else:
            count, path = 97, "streaming"
        paths.setdefault(path, set()).add(name)
        assert found[0].tolist() == [32 if count > 96 else count] * 2, name  # the streaming network writes K entries
    assert paths["one window"] >= {"ties"}
    assert paths["two windows"] >= {"one dominant group", "outlier"}
    assert paths["streaming"] >= {
        "constant",
        "few dominant groups",
        "mostly -inf",
        "mostly NaN",
        "many +inf",
        "all NaN",
    }
    assert paths["crowded"], paths


def test_rows_past_the_last_have_no_survivors(device: torch.device) -> None:
    queries, keys = inputs_with_scores(PATTERNS["rising"].to(device), PATTERNS["outlier"].to(device))
    assert (survivors_of(queries[:1], keys, 16)[0] < 32).all()


@pytest.mark.parametrize(("sub_keys", "k"), [(1, 1), (2, 2), (9, 3), (64, 32)])
def test_slots_stay_in_range_where_every_score_is_nan(
    sub_keys: int, k: int, dtype: torch.dtype, device: torch.device
) -> None:
    scores = torch.full((sub_keys,), torch.nan, device=device)
    assert_exact(*inputs_with_scores(scores, scores, dtype), k)


@pytest.mark.parametrize("k", [1, 2, 3, 8, 9, 16, 17, 31, 32])
def test_is_exact_for_every_kind_of_k(k: int, dtype: torch.dtype, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(k)
    queries = torch.randint(-4, 5, (3, 2, 2, 3), generator=generator).float().to(device)
    keys = torch.randint(-4, 5, (2, 2, 130, 3), generator=generator).float().to(device)
    assert_exact(queries.to(dtype), keys.to(dtype), k)


def test_is_exact_past_one_segment_of_blocks(dtype: torch.dtype, device: torch.device) -> None:
    """2,048 sub-keys fill the bits of an int32; more take another segment, whose survivors are appended."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randperm(2200, generator=generator).float()
    second = torch.cat((torch.zeros(2048), torch.arange(152.0)))
    assert_exact(*inputs_with_scores(first.to(device), second.to(device), dtype), 32)


def test_is_exact_past_one_tile_of_rows(dtype: torch.dtype, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randint(-9, 10, (131, 1, 2, 4), generator=generator).float().to(device)
    keys = torch.randint(-9, 10, (1, 2, 70, 4), generator=generator).float().to(device)
    assert_exact(queries.to(dtype), keys.to(dtype), 11)


@pytest.mark.parametrize(
    ("k", "names"),
    [(32, ("survivors", "lists")), (33, ("axis", "pairs")), (129, ("axis_search", "pairs_search"))],
)
def test_k_chooses_the_kernels(k: int, names: tuple[str, str], device: torch.device) -> None:
    launch_counts.clear()
    scores = torch.arange(130.0, device=device)
    assert_exact(*inputs_with_scores(scores, scores), k)
    assert launch_counts == {f"_product_key_topk_{name}_fwd_kernel": 1 for name in names}


SPECIAL = (0.0, -0.0, 1.0, -1.0, 3e38, -3e38, 1e-30, 1e-45, torch.inf, -torch.inf, torch.nan)


@st.composite
def axis_scores(draw: st.DrawFn) -> Tensor:
    """Scores of one axis: random, few distinct values, sorted or grouped by column, with special values put in."""
    size = draw(st.sampled_from([33, 64, 65, 128, 200]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    distinct = draw(st.sampled_from([1, 2, 10, 60, 10_000]))
    scores = torch.randint(-distinct, distinct + 1, (size,), generator=generator).float()
    order = draw(st.sampled_from(["as drawn", "rising", "falling", "by column"]))
    if order in ("rising", "falling"):
        scores = scores.sort(descending=order == "falling").values
    elif order == "by column":
        scores = scores + 1000.0 * (torch.arange(size) % 64 < draw(st.integers(1, 10)))
    for value in draw(st.lists(st.sampled_from(SPECIAL), max_size=4)):
        scores[torch.rand(size, generator=generator) < draw(st.sampled_from([0.01, 0.2, 0.9]))] = value
    return scores


def check_drawn(data: st.DataObject, device: torch.device) -> None:
    first, second = data.draw(axis_scores()), data.draw(axis_scores())
    size = min(len(first), len(second))
    launchers.FEW_ROWS = data.draw(st.sampled_from([0, 4096]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    if device.type == "cuda" and dtype == torch.float32:  # the smaller scores vanish; docs/concepts/kernels.md
        first, second = (torch.where(scores.abs() < 2.0**-110, 0, scores) for scores in (first, second))
    assert_exact(
        *inputs_with_scores(first[:size].to(device), second[:size].to(device), dtype),
        data.draw(st.sampled_from([1, 7, 16, 32])),
    )


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts back what the drawn cases set."""
    monkeypatch.setattr(launchers, "FEW_ROWS", launchers.FEW_ROWS)


@pytest.mark.usefixtures("restored")
@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_is_exact_on_30_drawn_cases(device: torch.device, data: st.DataObject) -> None:
    check_drawn(data, device)


@pytest.mark.slow
@pytest.mark.usefixtures("restored")
@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_is_exact_on_200_drawn_cases(device: torch.device, data: st.DataObject) -> None:
    check_drawn(data, device)


@pytest.mark.overnight
@pytest.mark.usefixtures("restored")
@settings(max_examples=10_000, deadline=None)
@given(st.data())
def test_is_exact_on_10_000_drawn_cases(device: torch.device, data: st.DataObject) -> None:
    check_drawn(data, device)
