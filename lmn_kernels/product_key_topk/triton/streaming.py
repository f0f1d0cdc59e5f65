"""Selection for K up to 128: stream the sub-keys past a tile of rows and keep the K best in a register network.

It computes scores as ``block_scores`` does, but with ``ieee`` products alone and a mask on every load.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .merging import best_of_both
from .packed_order import LOWEST, activate_rows, add_scores, combine_terms, rank32, unrank32


@triton.jit(do_not_specialize=["B"])
def _product_key_topk_axis_fwd_kernel(
    q_ptr, k_ptr, q_term_ptr, k_term_ptr, top_scores_ptr, top_index_ptr,
    B, H, stride_qb, stride_qh, stride_qa, stride_qc, stride_kh, stride_ka, stride_kn, stride_kc,
    N: tl.constexpr, C: tl.constexpr, K: tl.constexpr, METRIC: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The K best sub-keys of each row on each axis, best first.

    A program takes ``BLOCK_B`` rows of one head and axis; grid ``(ceil(B / BLOCK_B), H * 2)``.

    In: q ``[B, H, 2, C]`` and k ``[H, 2, N, C]`` of one type, float32, bfloat16 or float16; unless METRIC is "dot",
    q_term ``[B, H, 2]`` and k_term ``[H, 2, N]``, float32.
    Out: top_scores float32 and top_index int32, both ``[B, H, 2, K]``.
    """
    b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    head_axis = tl.program_id(1)
    rows = b * (2 * H) + head_axis  # [BLOCK_B]: row of a [B * H * 2, ...] tensor
    q_rows = (
        q_ptr + b * stride_qb + (head_axis // 2).to(tl.int64) * stride_qh + (head_axis % 2).to(tl.int64) * stride_qa
    )
    k_base = k_ptr + (head_axis // 2).to(tl.int64) * stride_kh + (head_axis % 2).to(tl.int64) * stride_ka
    if METRIC != "dot":
        q_term = tl.load(q_term_ptr + rows, mask=b < B, other=0)[:, None]
    best = tl.full([BLOCK_B, BLOCK_K], LOWEST, dtype=tl.int64)
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
            )  # [BLOCK_C, BLOCK_N]
            scores = tl.dot(q, k, scores, input_precision="ieee")
        if METRIC != "dot":
            k_term = tl.load(k_term_ptr + head_axis.to(tl.int64) * N + n, mask=n < N, other=0)[None, :]
            scores = combine_terms(scores, q_term, k_term, METRIC)
        ranked = tl.where((n < N)[None, :], rank32(scores, n[None, :]), LOWEST)
        if BLOCK_N > BLOCK_K:  # else they are equal, and the whole block takes part
            ranked = tl.topk(ranked, BLOCK_K)
        best = best_of_both(best, ranked, BLOCK_B, BLOCK_K)
    top_scores, top_index = unrank32(best)
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
    """The K best pairs of each row and head, best first, with the activation applied.

    A program takes ``BLOCK_R`` of the R = B * H rows; grid ``(ceil(R / BLOCK_R),)``.

    In: top_scores float32 and top_index int32, ``[R, 2, K]``, each axis best first; ranks ``[2, P]`` int32, the pairs
    of ``staircase.py``.
    Out: scores float32 (weights, unless ACTIVATION is "none") and slots int64, both ``[R, K]``.
    """
    r = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    p = tl.arange(0, BLOCK_P)
    rank_0 = tl.load(ranks_ptr + p, mask=p < P, other=0)
    rank_1 = tl.load(ranks_ptr + P + p, mask=p < P, other=0)
    list_start = r[:, None] * (2 * K)  # [BLOCK_R, 1]: of axis 0; that of axis 1 is K further
    pair_mask = (r < R)[:, None] & (p < P)[None, :]
    score_0 = tl.load(top_scores_ptr + list_start + rank_0[None, :], mask=pair_mask, other=0)
    score_1 = tl.load(top_scores_ptr + list_start + K + rank_1[None, :], mask=pair_mask, other=0)
    ranked = tl.where((p < P)[None, :], rank32(add_scores(score_0, score_1), p[None, :]), LOWEST)  # [BLOCK_R, BLOCK_P]
    ranked = tl.topk(ranked, BLOCK_K) if BLOCK_P > BLOCK_K else tl.sort(ranked, descending=True)
    scores, pair = unrank32(ranked)  # [BLOCK_R, BLOCK_K]
    k = tl.arange(0, BLOCK_K)
    mask = (r < R)[:, None] & (k < K)[None, :]
    i = tl.load(top_index_ptr + list_start + tl.load(ranks_ptr + pair, mask=mask, other=0), mask=mask, other=0)
    j = tl.load(top_index_ptr + list_start + K + tl.load(ranks_ptr + P + pair, mask=mask, other=0), mask=mask, other=0)
    scores = activate_rows(scores, (k < K)[None, :], ACTIVATION, 1)
    out = r[:, None] * K + k[None, :]
    tl.store(scores_ptr + out, scores, mask=mask)
    tl.store(slots_ptr + out, i.to(tl.int64) * N + j, mask=mask)
