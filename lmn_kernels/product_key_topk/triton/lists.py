"""Pair selection after ``survivors.py``: sort the lists of both axes, take the K best pairs, apply the activation.

A warp has two rows and spreads each over its lanes: a load is a row's list, and everything after it is exchanged
between lanes. A thread for each row would issue a third of the instructions, but must hold 32 ranked scores of 8 bytes
in registers, which leaves two warps a scheduler to hide every load: that took longer, see docs/performance.md.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .ordering import LOWEST, activate_rows, add_scores, rank32, unrank32


@triton.jit
def _best_of_axis(
    lists_ptr, counts_ptr, head_axis, b, B,
    PLACES: tl.constexpr, CAPACITY: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """Scores and sub-keys ``[BLOCK_R, BLOCK_K]`` of an axis, best first; NaN past the last."""
    count = tl.load(counts_ptr + head_axis * B + b, mask=b < B, other=0)[:, None]
    survivors = (lists_ptr + (head_axis * B + b) * CAPACITY)[:, None]
    place = tl.arange(0, PLACES)[None, :]
    best = tl.topk(tl.load(survivors + place, mask=place < count, other=LOWEST), BLOCK_K)
    k = tl.arange(0, BLOCK_K)[None, :]
    for start in range(PLACES, tl.minimum(tl.max(tl.max(count, axis=1), axis=0), CAPACITY), BLOCK_K):  # hardly ever
        more = tl.load(survivors + start + k, mask=start + k < count, other=LOWEST)
        best = tl.topk(tl.reshape(tl.join(best, more), [BLOCK_R, 2 * BLOCK_K]), BLOCK_K)
    return unrank32(best)


@triton.jit(do_not_specialize=["B"])
def _product_key_topk_lists_fwd_kernel(
    lists_ptr, counts_ptr, ranks_ptr, scores_ptr, slots_ptr,
    B, H, N: tl.constexpr, K: tl.constexpr, PLACES: tl.constexpr, CAPACITY: tl.constexpr, P: tl.constexpr,
    ACTIVATION: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    head = tl.program_id(1).to(tl.int64)
    first, i = _best_of_axis(lists_ptr, counts_ptr, head * 2, b, B, PLACES, CAPACITY, BLOCK_K, BLOCK_R)
    second, j = _best_of_axis(lists_ptr, counts_ptr, head * 2 + 1, b, B, PLACES, CAPACITY, BLOCK_K, BLOCK_R)

    p = tl.arange(0, BLOCK_P)[None, :]
    rows = tl.zeros([BLOCK_R, 1], dtype=tl.int32)
    first_rank = rows + tl.load(ranks_ptr + p, mask=p < P, other=0)
    second_rank = rows + tl.load(ranks_ptr + P + p, mask=p < P, other=0)
    sums = add_scores(tl.gather(first, first_rank, 1), tl.gather(second, second_rank, 1))
    pairs = tl.where(p < P, rank32(sums, p), LOWEST)
    pairs = tl.topk(pairs, BLOCK_K) if BLOCK_P > BLOCK_K else tl.sort(pairs, descending=True)
    scores, pair = unrank32(pairs)
    k = tl.arange(0, BLOCK_K)[None, :]
    first_rank = tl.load(ranks_ptr + pair, mask=k < K, other=0)
    second_rank = tl.load(ranks_ptr + P + pair, mask=k < K, other=0)
    slots = tl.gather(i, first_rank, 1).to(tl.int64) * N + tl.gather(j, second_rank, 1)
    scores = activate_rows(scores, k < K, ACTIVATION, 1)
    out = (b[:, None] * H + head) * K + k
    mask = (b < B)[:, None] & (k < K)
    tl.store(scores_ptr + out, scores, mask=mask)
    tl.store(slots_ptr + out, slots, mask=mask)
