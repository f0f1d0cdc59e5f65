"""Selection by K scans, each for the best score after the last one found: for float64 and large K, with no buffer.

The order is that of ``rank64``, then of the index. Every scan finds something, because there are at least K sub-keys
and at least K pairs. The activation is not applied here: the launcher leaves it to torch.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .packed_order import LOWEST, add_scores, combine_terms, comes_after, rank64

HIGHEST = tl.constexpr(2**63 - 1)


@triton.jit
def _best_in_block(ranked, index, END: tl.constexpr):
    """Of each row of ``ranked [R, P]`` the highest, and the lowest ``index [P]`` that has it: both ``[R]``.

    ``END`` is above every index that counts. A row of LOWEST alone has no best one: its index means nothing.
    """
    best = tl.max(ranked, axis=1)
    return best, tl.min(tl.where(ranked == best[:, None], index[None, :], END), axis=1)


@triton.jit(do_not_specialize=["B"])
def _product_key_topk_axis_search_fwd_kernel(
    q_ptr, k_ptr, q_term_ptr, k_term_ptr, top_scores_ptr, top_index_ptr,
    B, H, stride_qb, stride_qh, stride_qa, stride_qc, stride_kh, stride_ka, stride_kn, stride_kc,
    N: tl.constexpr, C: tl.constexpr, K: tl.constexpr, METRIC: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """The K best sub-keys of each row on each axis, best first.

    A program takes ``BLOCK_B`` rows of one head and axis; grid ``(ceil(B / BLOCK_B), H * 2)``.

    In: q ``[B, H, 2, C]`` and k ``[H, 2, N, C]`` of one float type; unless METRIC is "dot", q_term ``[B, H, 2]`` and
    k_term ``[H, 2, N]``, ACC.
    Out: top_scores ACC (float32, or float64 for float64) and top_index int32, both ``[B, H, 2, K]``.
    """
    b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    head_axis = tl.program_id(1).to(tl.int64)
    rows = b * (2 * H) + head_axis  # [BLOCK_B]: row of a [B * H * 2, ...] tensor
    q_rows = q_ptr + b * stride_qb + (head_axis // 2) * stride_qh + (head_axis % 2) * stride_qa
    k_base = k_ptr + (head_axis // 2) * stride_kh + (head_axis % 2) * stride_ka
    if METRIC != "dot":
        q_term = tl.load(q_term_ptr + rows, mask=b < B, other=0)[:, None]
    last_rank = tl.full([BLOCK_B], HIGHEST, dtype=tl.int64)
    last_index = tl.full([BLOCK_B], -1, dtype=tl.int32)
    for place in range(K):
        best_rank = tl.full([BLOCK_B], LOWEST, dtype=tl.int64)
        best_index = tl.full([BLOCK_B], 0, dtype=tl.int32)
        best_score = tl.zeros([BLOCK_B], dtype=ACC)
        for first in range(0, N, BLOCK_N):
            n = first + tl.arange(0, BLOCK_N)
            scores = tl.zeros([BLOCK_B, BLOCK_N], dtype=ACC)
            q_column = q_rows  # [BLOCK_B] pointers
            k_column = k_base + n.to(tl.int64) * stride_kn  # [BLOCK_N] pointers
            for _ in range(C):
                q = tl.load(q_column, mask=b < B, other=0).to(ACC)
                k = tl.load(k_column, mask=n < N, other=0).to(ACC)
                scores += q[:, None] * k[None, :]
                q_column += stride_qc
                k_column += stride_kc
            if METRIC != "dot":
                k_term = tl.load(k_term_ptr + head_axis * N + n, mask=n < N, other=0)[None, :]
                scores = combine_terms(scores, q_term, k_term, METRIC)
            ranked = rank64(scores)
            later = comes_after(ranked, n[None, :], last_rank[:, None], last_index[:, None])
            ranked = tl.where((n < N)[None, :] & later, ranked, LOWEST)
            block_rank, block_index = _best_in_block(ranked, n, N)
            block_score = tl.sum(tl.where(n[None, :] == block_index[:, None], scores, 0.0), axis=1)
            better = block_rank > best_rank
            best_rank = tl.where(better, block_rank, best_rank)
            best_index = tl.where(better, block_index, best_index)
            best_score = tl.where(better, block_score, best_score)
        tl.store(top_scores_ptr + rows * K + place, best_score, mask=b < B)
        tl.store(top_index_ptr + rows * K + place, best_index, mask=b < B)
        last_rank = best_rank
        last_index = best_index


@triton.jit(do_not_specialize=["R"])
def _product_key_topk_pairs_search_fwd_kernel(
    top_scores_ptr, top_index_ptr, ranks_ptr, scores_ptr, slots_ptr, R,
    N: tl.constexpr, K: tl.constexpr, P: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """The K best pairs of each row and head, best first.

    A program takes ``BLOCK_R`` of the R = B * H rows; grid ``(ceil(R / BLOCK_R),)``.

    In: top_scores float32 or float64 and top_index int32, ``[R, 2, K]``, each axis best first; ranks ``[2, P]`` int32,
    the pairs of ``staircase.py``.
    Out: scores of the type of top_scores and slots int64, both ``[R, K]``.
    """
    r = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    top_scores = top_scores_ptr + r * (2 * K)  # [BLOCK_R] pointers
    top_index = top_index_ptr + r * (2 * K)
    last_rank = tl.full([BLOCK_R], HIGHEST, dtype=tl.int64)
    last_pair = tl.full([BLOCK_R], -1, dtype=tl.int32)
    for place in range(K):
        best_rank = tl.full([BLOCK_R], LOWEST, dtype=tl.int64)
        best_pair = tl.full([BLOCK_R], 0, dtype=tl.int32)
        for start in range(0, P, BLOCK_P):
            p = start + tl.arange(0, BLOCK_P)
            pair_mask = (r < R)[:, None] & (p < P)[None, :]
            rank_0 = tl.load(ranks_ptr + p, mask=p < P, other=0)
            rank_1 = tl.load(ranks_ptr + P + p, mask=p < P, other=0)
            score_0 = tl.load(top_scores[:, None] + rank_0[None, :], mask=pair_mask, other=0)
            score_1 = tl.load(top_scores[:, None] + K + rank_1[None, :], mask=pair_mask, other=0)
            ranked = rank64(add_scores(score_0, score_1))  # [BLOCK_R, BLOCK_P]
            later = comes_after(ranked, p[None, :], last_rank[:, None], last_pair[:, None])
            ranked = tl.where((p < P)[None, :] & later, ranked, LOWEST)
            block_rank, block_pair = _best_in_block(ranked, p, P)
            better = block_rank > best_rank
            best_rank = tl.where(better, block_rank, best_rank)
            best_pair = tl.where(better, block_pair, best_pair)
        rank_0 = tl.load(ranks_ptr + best_pair)  # [BLOCK_R]
        rank_1 = tl.load(ranks_ptr + P + best_pair)
        score_0 = tl.load(top_scores + rank_0, mask=r < R, other=0)
        score = add_scores(score_0, tl.load(top_scores + K + rank_1, mask=r < R, other=0))
        score = tl.where(score == score, score, float("-inf"))
        i = tl.load(top_index + rank_0, mask=r < R, other=0).to(tl.int64)
        slot = i * N + tl.load(top_index + K + rank_1, mask=r < R, other=0)
        tl.store(scores_ptr + r * K + place, score, mask=r < R)
        tl.store(slots_ptr + r * K + place, slot, mask=r < R)
        last_rank = best_rank
        last_pair = best_pair
