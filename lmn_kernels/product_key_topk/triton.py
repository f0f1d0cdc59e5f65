"""Triton kernels of product-key selection: two, and scores never in memory.

1. The axis kernel streams the sub-keys past a tile of query halves, turns each score into an integer whose order is the
   contract's order (the float's bits made monotone, then the reversed index), and keeps the K best in registers.
2. The pair kernel looks at the staircase of rank pairs alone (see ``staircase.py``), picks the K best sums the same
   way, and applies the activation.

The integer leaves no room for 64-bit scores, and a register network none for a large K. For float64, and for K above
``LARGEST_NETWORK``, two search kernels do the same steps by K scans, each for the best score after the last one found:
slow, exact, and no buffer at all.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..activation import activate
from ..dtypes import accumulator
from ..gather_aggregate.triton import launch_gather_aggregate, launch_scatter_rows
from ..launch import launch
from .metric import metric_term, sparse_score_backward
from .staircase import staircase

LARGEST_NETWORK = 128
_LOWEST = tl.constexpr(-(2**63))


def launch_product_key_topk(
    queries: Tensor, keys: Tensor, k: int, metric: str, activation: str | None = None
) -> tuple[Tensor, Tensor]:
    """Scores, or weights where an ``activation`` is named, and slots: both ``[B, H, K]``, best first."""
    B, H, _, C = queries.shape
    N = keys.shape[2]
    dtype = accumulator(queries.dtype)
    scores = queries.new_empty(B, H, k, dtype=dtype)
    slots = queries.new_empty(B, H, k, dtype=torch.int64)
    if B == 0:
        return scores, slots
    top_scores = queries.new_empty(B, H, 2, k, dtype=dtype)
    top_index = queries.new_empty(B, H, 2, k, dtype=torch.int32)
    ranks = staircase(k, queries.device)
    query_term = metric_term(queries, metric, dtype)
    key_term = metric_term(keys, metric, dtype)
    axis_args = (
        queries, keys, query_term, key_term, top_scores, top_index,
        B, H, *queries.stride(), *keys.stride(),
    )  # fmt: skip
    pair_args = (top_scores, top_index, ranks, scores, slots, B * H)
    if dtype == torch.float64 or k > LARGEST_NETWORK:
        acc = tl.float64 if dtype == torch.float64 else tl.float32
        launch(
            _product_key_topk_axis_search_fwd_kernel, (triton.cdiv(B, 16), H * 2), *axis_args,
            N=N, C=C, K=k, METRIC=metric, BLOCK_B=16, BLOCK_N=min(triton.next_power_of_2(N), 32), ACC=acc, num_warps=4,
        )  # fmt: skip
        launch(
            _product_key_topk_pairs_search_fwd_kernel, (triton.cdiv(B * H, 16),), *pair_args,
            N=N, K=k, P=ranks.shape[1], BLOCK_R=16, BLOCK_P=min(triton.next_power_of_2(ranks.shape[1]), 64),
            num_warps=4,
        )  # fmt: skip
        return (scores if activation is None else activate(scores, activation)), slots
    block_k = triton.next_power_of_2(k)
    block_n = max(64, block_k)
    block_c = max(16, min(triton.next_power_of_2(C), 32 if queries.dtype == torch.float32 else 64))
    launch(
        _product_key_topk_axis_fwd_kernel, (triton.cdiv(B, 16), H * 2), *axis_args,
        N=N, C=C, K=k, METRIC=metric, BLOCK_B=16, BLOCK_N=block_n, BLOCK_C=block_c, BLOCK_K=block_k,
        num_warps=8 if block_k > 8 else 4, num_stages=1,  # wider C, 4 warps or more stages spill at some K and type
    )  # fmt: skip
    block_p = triton.next_power_of_2(ranks.shape[1])
    block_r = max(1, 512 // block_p)
    launch(
        _product_key_topk_pairs_fwd_kernel, (triton.cdiv(B * H, block_r),), *pair_args,
        N=N, K=k, P=ranks.shape[1], ACTIVATION=activation or "none",
        BLOCK_R=block_r, BLOCK_P=block_p, BLOCK_K=block_k, num_warps=4,
    )  # fmt: skip
    return scores, slots


def launch_product_key_topk_backward(
    grad_scores: Tensor, queries: Tensor, keys: Tensor, slots: Tensor, metric: str, needs: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the queries and of the keys from those of the chosen scores."""
    return sparse_score_backward(
        grad_scores, queries, keys, slots, metric, needs, bag=_bag, scatter=launch_scatter_rows
    )


def _bag(table: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    return launch_gather_aggregate(table, ids, weights, out_dtype=weights.dtype)


@triton.jit
def _rank32(scores, index):
    """int64 whose order is: higher score, NaN last, lower index."""
    bits = tl.where(scores == 0, 0.0, scores).to(tl.int32, bitcast=True)  # -0.0 equals 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    ordered = tl.where(scores != scores, -0x7FFFFFFF - 1, ordered)
    return (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - index).to(tl.int64)


@triton.jit
def _unrank32(ranked):
    """Score and index that :func:`_rank32` packed; a NaN comes back as some NaN."""
    ordered = (ranked >> 32).to(tl.int32)
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    return bits.to(tl.float32, bitcast=True), 0x7FFFFFFF - (ranked & 0x7FFFFFFF).to(tl.int32)


@triton.jit
def _rank64(scores):
    """int64 in the order of the scores, NaN lowest, and above the lowest int64."""
    wide = scores.to(tl.float64)
    bits = tl.where(wide == 0, 0.0, wide).to(tl.int64, bitcast=True)
    ordered = bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)
    return tl.where(wide != wide, _LOWEST + 1, ordered)


@triton.jit
def _comes_after(ranked, index, last_rank, last_index):
    return (ranked < last_rank) | ((ranked == last_rank) & (index > last_index))


@triton.jit
def _combine_terms(dots, query_term, key_term, METRIC: tl.constexpr):
    if METRIC == "cosine":
        return dots * query_term * key_term
    if METRIC == "l2":
        scores = 2 * dots - key_term - query_term
        return tl.where(scores > 0, 0.0, scores)  # rounding must not make a distance negative
    return dots


@triton.jit
def _add_scores(first, second):
    """Sum in which -inf wins over +inf; only NaN gives NaN."""
    sums = first + second
    clash = (sums != sums) & (first == first) & (second == second)
    return tl.where(clash, float("-inf"), sums)


@triton.jit(do_not_specialize=["B"])
def _product_key_topk_axis_fwd_kernel(
    q_ptr, k_ptr, q_term_ptr, k_term_ptr, top_scores_ptr, top_index_ptr,
    B, H, stride_qb, stride_qh, stride_qa, stride_qc, stride_kh, stride_ka, stride_kn, stride_kc,
    N: tl.constexpr, C: tl.constexpr, K: tl.constexpr, METRIC: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    head_axis = tl.program_id(1)
    rows = b * (2 * H) + head_axis  # [BLOCK_B]: row of a [B * H * 2, ...] tensor
    q_rows = (
        q_ptr + b * stride_qb + (head_axis // 2).to(tl.int64) * stride_qh + (head_axis % 2).to(tl.int64) * stride_qa
    )
    k_base = k_ptr + (head_axis // 2).to(tl.int64) * stride_kh + (head_axis % 2).to(tl.int64) * stride_ka
    if METRIC != "dot":
        query_term = tl.load(q_term_ptr + rows, mask=b < B, other=0)[:, None]
    best = tl.full([BLOCK_B, BLOCK_K], _LOWEST, dtype=tl.int64)
    for first in range(0, N, BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        scores = tl.zeros([BLOCK_B, BLOCK_N], dtype=tl.float32)
        for c_first in range(0, C, BLOCK_C):
            c = (c_first + tl.arange(0, BLOCK_C)).to(tl.int64)
            q = tl.load(q_rows[:, None] + c[None, :] * stride_qc, mask=(b < B)[:, None] & (c < C)[None, :], other=0)
            k = tl.load(
                k_base + n[None, :].to(tl.int64) * stride_kn + c[:, None] * stride_kc,
                mask=(n < N)[None, :] & (c < C)[:, None],
                other=0,
            )
            scores = tl.dot(q, k, scores, input_precision="ieee")
        if METRIC != "dot":
            key_term = tl.load(k_term_ptr + head_axis.to(tl.int64) * N + n, mask=n < N, other=0)[None, :]
            scores = _combine_terms(scores, query_term, key_term, METRIC)
        ranked = tl.where((n < N)[None, :], _rank32(scores, n[None, :]), _LOWEST)
        if BLOCK_N > BLOCK_K:
            ranked = tl.topk(ranked, BLOCK_K)
        best = tl.topk(tl.reshape(tl.join(best, ranked), [BLOCK_B, 2 * BLOCK_K]), BLOCK_K)
    top_scores, top_index = _unrank32(best)
    k_out = tl.arange(0, BLOCK_K)
    out = rows[:, None] * K + k_out[None, :]
    mask = (b < B)[:, None] & (k_out < K)[None, :]
    tl.store(top_scores_ptr + out, top_scores, mask=mask)
    tl.store(top_index_ptr + out, top_index, mask=mask)


@triton.jit(do_not_specialize=["R"])
def _product_key_topk_pairs_fwd_kernel(
    top_scores_ptr, top_index_ptr, ranks_ptr, scores_ptr, slots_ptr, R,
    N: tl.constexpr, K: tl.constexpr, P: tl.constexpr, ACTIVATION: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    p = tl.arange(0, BLOCK_P)
    first_rank = tl.load(ranks_ptr + p, mask=p < P, other=0)
    second_rank = tl.load(ranks_ptr + P + p, mask=p < P, other=0)
    rows = r[:, None] * (2 * K)
    some = (r < R)[:, None] & (p < P)[None, :]
    first = tl.load(top_scores_ptr + rows + first_rank[None, :], mask=some, other=0)
    second = tl.load(top_scores_ptr + rows + K + second_rank[None, :], mask=some, other=0)
    ranked = tl.where((p < P)[None, :], _rank32(_add_scores(first, second), p[None, :]), _LOWEST)
    ranked = tl.topk(ranked, BLOCK_K) if BLOCK_P > BLOCK_K else tl.sort(ranked, descending=True)
    scores, pair = _unrank32(ranked)
    k = tl.arange(0, BLOCK_K)
    mask = (r < R)[:, None] & (k < K)[None, :]
    i = tl.load(top_index_ptr + rows + tl.load(ranks_ptr + pair, mask=mask, other=0), mask=mask, other=0)
    j = tl.load(top_index_ptr + rows + K + tl.load(ranks_ptr + P + pair, mask=mask, other=0), mask=mask, other=0)
    scores = tl.where(scores == scores, scores, float("-inf"))
    if ACTIVATION == "softmax":
        scores = tl.where((k < K)[None, :], scores, float("-inf"))
        best = tl.max(scores, axis=1)[:, None]
        shares = tl.where((k < K)[None, :], tl.exp(tl.where(scores == best, 0.0, scores - best)), 0.0)
        scores = shares / tl.sum(shares, axis=1)[:, None]
    elif ACTIVATION == "sigmoid":
        scores = tl.sigmoid(scores)
    elif ACTIVATION == "relu":
        scores = tl.maximum(scores, 0.0)
    out = r[:, None] * K + k[None, :]
    tl.store(scores_ptr + out, scores, mask=mask)
    tl.store(slots_ptr + out, i.to(tl.int64) * N + j, mask=mask)


@triton.jit(do_not_specialize=["B"])
def _product_key_topk_axis_search_fwd_kernel(
    q_ptr, k_ptr, q_term_ptr, k_term_ptr, top_scores_ptr, top_index_ptr,
    B, H, stride_qb, stride_qh, stride_qa, stride_qc, stride_kh, stride_ka, stride_kn, stride_kc,
    N: tl.constexpr, C: tl.constexpr, K: tl.constexpr, METRIC: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    head_axis = tl.program_id(1).to(tl.int64)
    rows = b * (2 * H) + head_axis  # [BLOCK_B]: row of a [B * H * 2, ...] tensor
    q_rows = q_ptr + b * stride_qb + (head_axis // 2) * stride_qh + (head_axis % 2) * stride_qa
    k_base = k_ptr + (head_axis // 2) * stride_kh + (head_axis % 2) * stride_ka
    if METRIC != "dot":
        query_term = tl.load(q_term_ptr + rows, mask=b < B, other=0)[:, None]
    last_rank = tl.full([BLOCK_B], 0x7FFFFFFFFFFFFFFF, dtype=tl.int64)
    last_index = tl.full([BLOCK_B], -1, dtype=tl.int32)
    for rank in range(K):
        best_rank = tl.full([BLOCK_B], _LOWEST, dtype=tl.int64)
        best_index = tl.full([BLOCK_B], 0, dtype=tl.int32)
        best_score = tl.zeros([BLOCK_B], dtype=ACC)
        for first in range(0, N, BLOCK_N):
            n = first + tl.arange(0, BLOCK_N)
            scores = tl.zeros([BLOCK_B, BLOCK_N], dtype=ACC)
            q_column = q_rows
            k_column = k_base + n.to(tl.int64) * stride_kn
            for _ in range(C):
                q = tl.load(q_column, mask=b < B, other=0).to(ACC)
                k = tl.load(k_column, mask=n < N, other=0).to(ACC)
                scores += q[:, None] * k[None, :]
                q_column += stride_qc
                k_column += stride_kc
            if METRIC != "dot":
                key_term = tl.load(k_term_ptr + head_axis * N + n, mask=n < N, other=0)[None, :]
                scores = _combine_terms(scores, query_term, key_term, METRIC)
            ranked = _rank64(scores)
            later = _comes_after(ranked, n[None, :], last_rank[:, None], last_index[:, None])
            ranked = tl.where((n < N)[None, :] & later, ranked, _LOWEST)
            block_rank = tl.max(ranked, axis=1)
            block_index = tl.min(tl.where(ranked == block_rank[:, None], n[None, :], N), axis=1)
            block_score = tl.sum(tl.where(n[None, :] == block_index[:, None], scores, 0.0), axis=1)
            better = block_rank > best_rank
            best_rank = tl.where(better, block_rank, best_rank)
            best_index = tl.where(better, block_index, best_index)
            best_score = tl.where(better, block_score, best_score)
        tl.store(top_scores_ptr + rows * K + rank, best_score, mask=b < B)
        tl.store(top_index_ptr + rows * K + rank, best_index, mask=b < B)
        last_rank = best_rank
        last_index = best_index


@triton.jit(do_not_specialize=["R"])
def _product_key_topk_pairs_search_fwd_kernel(
    top_scores_ptr, top_index_ptr, ranks_ptr, scores_ptr, slots_ptr, R,
    N: tl.constexpr, K: tl.constexpr, P: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    top_scores = top_scores_ptr + r * (2 * K)
    top_index = top_index_ptr + r * (2 * K)
    last_rank = tl.full([BLOCK_R], 0x7FFFFFFFFFFFFFFF, dtype=tl.int64)
    last_pair = tl.full([BLOCK_R], -1, dtype=tl.int32)
    for rank in range(K):
        best_rank = tl.full([BLOCK_R], _LOWEST, dtype=tl.int64)
        best_pair = tl.full([BLOCK_R], 0, dtype=tl.int32)
        for start in range(0, P, BLOCK_P):
            p = start + tl.arange(0, BLOCK_P)
            some = (r < R)[:, None] & (p < P)[None, :]
            i_rank = tl.load(ranks_ptr + p, mask=p < P, other=0)
            j_rank = tl.load(ranks_ptr + P + p, mask=p < P, other=0)
            first = tl.load(top_scores[:, None] + i_rank[None, :], mask=some, other=0)
            second = tl.load(top_scores[:, None] + K + j_rank[None, :], mask=some, other=0)
            ranked = _rank64(_add_scores(first, second))
            later = _comes_after(ranked, p[None, :], last_rank[:, None], last_pair[:, None])
            ranked = tl.where((p < P)[None, :] & later, ranked, _LOWEST)
            block_rank = tl.max(ranked, axis=1)
            block_pair = tl.min(tl.where(ranked == block_rank[:, None], p[None, :], P), axis=1)
            better = block_rank > best_rank
            best_rank = tl.where(better, block_rank, best_rank)
            best_pair = tl.where(better, block_pair, best_pair)
        i_rank = tl.load(ranks_ptr + best_pair)
        j_rank = tl.load(ranks_ptr + P + best_pair)
        first = tl.load(top_scores + i_rank, mask=r < R, other=0)
        score = _add_scores(first, tl.load(top_scores + K + j_rank, mask=r < R, other=0))
        score = tl.where(score == score, score, float("-inf"))
        i = tl.load(top_index + i_rank, mask=r < R, other=0).to(tl.int64)
        slot = i * N + tl.load(top_index + K + j_rank, mask=r < R, other=0)
        tl.store(scores_ptr + r * K + rank, score, mask=r < R)
        tl.store(slots_ptr + r * K + rank, slot, mask=r < R)
        last_rank = best_rank
        last_pair = best_pair
