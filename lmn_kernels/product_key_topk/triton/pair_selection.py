"""Pair selection after ``survivors.py``: sort the lists of both axes, take the K best pairs, apply the activation.

A warp takes two rows and spreads each over its lanes: it loads a row's list at once, and lanes exchange everything
after that. Pairs come in chunks (``staircase.py``), the first ones sorted by construction, so most of them need a
merge and no sort. A thread for each row would issue a third of the instructions, but must hold 32 ranked scores of 8
bytes in registers, which leaves two warps a scheduler to hide every load. That took longer: see
docs/performance/bounds.md.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .merging import best_of_both, merge_best, merge_bitonic
from .packed_order import LOWEST, activate_rows, add_scores, rank32, unrank32


@triton.jit
def _best_of_axis(
    lists_ptr, counts_ptr, head_axis, b, B,
    PLACES: tl.constexpr, CAPACITY: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """Scores and sub-keys ``[BLOCK_R, BLOCK_K]`` of an axis for rows ``b [BLOCK_R]``, best first; NaN past the last.

    Nearly every list fits ``PLACES``, which are loaded at once; the loop serves the others, up to ``CAPACITY``.
    """
    count = tl.load(counts_ptr + head_axis * B + b, mask=b < B, other=0)[:, None]
    survivors = (lists_ptr + (head_axis * B + b) * CAPACITY)[:, None]  # [BLOCK_R, 1] pointers
    place = tl.arange(0, PLACES)[None, :]
    best = tl.topk(tl.load(survivors + place, mask=place < count, other=LOWEST), BLOCK_K)
    k = tl.arange(0, BLOCK_K)[None, :]
    for start in range(PLACES, tl.minimum(tl.max(tl.max(count, axis=1), axis=0), CAPACITY), BLOCK_K):  # hardly ever
        more = tl.load(survivors + start + k, mask=start + k < count, other=LOWEST)
        best = best_of_both(best, more, BLOCK_R, BLOCK_K)
    return unrank32(best)


@triton.jit
def _pairs_of_chunk(
    chunks_ptr, chunk, score_0, score_1, K: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_R: tl.constexpr
):  # fmt: skip
    """Ranked sums ``[BLOCK_R, BLOCK_K]`` of one chunk of rank pairs, from the scores of both axes in the same shape."""
    p = tl.arange(0, BLOCK_K)[None, :]
    zeros = tl.zeros([BLOCK_R, 1], dtype=tl.int32)  # the ranks are the same in every row
    rank_0 = zeros + tl.load(chunks_ptr + chunk * 2 * BLOCK_K + p)  # [BLOCK_R, BLOCK_K]
    rank_1 = zeros + tl.load(chunks_ptr + chunk * 2 * BLOCK_K + BLOCK_K + p)
    pair_mask = rank_0 < K  # the rest is padding, of rank BLOCK_K
    pair = rank_0 * BLOCK_K + rank_1
    sums = add_scores(
        tl.gather(score_0, tl.where(pair_mask, rank_0, 0), 1), tl.gather(score_1, tl.where(pair_mask, rank_1, 0), 1)
    )
    return tl.where(pair_mask, rank32(sums, pair), LOWEST)


@triton.jit(do_not_specialize=["B"])
def _product_key_topk_lists_fwd_kernel(
    lists_ptr, counts_ptr, chunks_ptr, scores_ptr, slots_ptr,
    B, H, N: tl.constexpr, K: tl.constexpr, PLACES: tl.constexpr, CAPACITY: tl.constexpr, CHUNKS: tl.constexpr,
    ACTIVATION: tl.constexpr, BLOCK_K: tl.constexpr, LOG_K: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """The K best pairs of each row and head, best first, with the activation applied.

    A program takes ``BLOCK_R`` rows of one head; grid ``(ceil(B / BLOCK_R), H)``.

    In: lists ``[H * 2, B, CAPACITY]`` int64 and counts ``[H * 2, B]`` int32 of ``survivors.py``; chunks
    ``[CHUNKS, 2, BLOCK_K]`` int32, the pairs of ``staircase_chunks``.
    Out: scores float32 (weights, unless ACTIVATION is "none") and slots int64, both ``[B, H, K]``.

    PLACES: survivors that are loaded at once. LOG_K: log2 of ``BLOCK_K``.
    """
    b = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    head = tl.program_id(1).to(tl.int64)
    score_0, i = _best_of_axis(lists_ptr, counts_ptr, head * 2, b, B, PLACES, CAPACITY, BLOCK_K, BLOCK_R)
    score_1, j = _best_of_axis(lists_ptr, counts_ptr, head * 2 + 1, b, B, PLACES, CAPACITY, BLOCK_K, BLOCK_R)

    best = _pairs_of_chunk(chunks_ptr, 0, score_0, score_1, K, BLOCK_K, BLOCK_R)  # sorted, best first
    if CHUNKS > 1:
        pairs = _pairs_of_chunk(chunks_ptr, 1, score_0, score_1, K, BLOCK_K, BLOCK_R)  # sorted, best last
        best = merge_best(best, pairs, BLOCK_R, BLOCK_K, LOG_K)
    if CHUNKS > 2:
        pairs = _pairs_of_chunk(chunks_ptr, 2, score_0, score_1, K, BLOCK_K, BLOCK_R)  # falls, then rises
        best = merge_best(best, merge_bitonic(pairs, BLOCK_R, BLOCK_K, LOG_K, True), BLOCK_R, BLOCK_K, LOG_K)
    for chunk in tl.static_range(3, CHUNKS):
        pairs = _pairs_of_chunk(chunks_ptr, chunk, score_0, score_1, K, BLOCK_K, BLOCK_R)  # in no order
        best = merge_best(best, tl.sort(pairs), BLOCK_R, BLOCK_K, LOG_K)
    scores, pair = unrank32(best)  # [BLOCK_R, BLOCK_K]; a pair is rank_0 * BLOCK_K + rank_1
    k = tl.arange(0, BLOCK_K)[None, :]
    pair = tl.where(k < K, pair, 0)  # past K it may be padding, whose ranks lie outside i and j
    slots = tl.gather(i, pair // BLOCK_K, 1).to(tl.int64) * N + tl.gather(j, pair % BLOCK_K, 1)
    scores = activate_rows(scores, k < K, ACTIVATION, 1)
    out = (b[:, None] * H + head) * K + k
    mask = (b < B)[:, None] & (k < K)
    tl.store(scores_ptr + out, scores, mask=mask)
    tl.store(slots_ptr + out, slots, mask=mask)
