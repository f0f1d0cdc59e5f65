"""Axis selection in two passes over the scores: a bound on the K-th best, then the few that reach it.

Scores are never stored: tensor cores make them twice. A tile holds ``BLOCK_B`` rows; blocks of ``BLOCK_N`` sub-keys run
past it.

1. A column is the same place in every block. Its best score costs one instruction a score. K columns hold a score at
   least as good as the K-th best of the ``BLOCK_N`` column maxima, so that one bounds the K-th best score from below;
   a few steps of bisection find a bound just under it. Of N random scores about 44 reach it at K = 32, whatever N.
2. The scores are made again. A column keeps those that reach the bound in a shift register of ``DEPTH`` places, and a
   bit for each block, which tells later where they came from. Then a prefix sum over the columns gives each survivor
   its place in the row's list. The lists stay unsorted: that is the next kernel's work.

More survivors in a column than the register holds (1 to 2 tiles in 100 for random scores) are counted and stored in two
more passes. More in a row than the list holds (none seen for random scores; ties by the hundred, infinities) send the
tile through the exact streaming network instead. Both are as exact as the rest; they cost time only.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .packed_order import LOWEST, combine_terms, rank32

SEGMENT = tl.constexpr(32)  # blocks that one int32 of bits can tell apart


@triton.jit
def _block_scores(
    q, q_rows, row_mask, query_term, k_columns, k_terms, first,
    stride_qc, stride_kn, stride_kc,
    N: tl.constexpr, C: tl.constexpr, METRIC: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores ``[BLOCK_B, BLOCK_N]`` of the block of sub-keys that begins at ``first``; -inf past the last sub-key."""
    n = tl.arange(0, BLOCK_N)
    inside = first + n < N
    k_block = k_columns + tl.cast(first, tl.int64) * stride_kn  # [1, BLOCK_N] pointers
    scores = tl.zeros([BLOCK_B, BLOCK_N], dtype=tl.float32)
    for c_first in range(0, C, BLOCK_C):
        c = (c_first + tl.arange(0, BLOCK_C)).to(tl.int64)
        k_pointers = k_block + c[:, None] * stride_kc
        if C % BLOCK_C == 0 and N % BLOCK_N == 0:
            k = tl.load(k_pointers)
        else:
            k = tl.load(k_pointers, mask=inside[None, :] & (c < C)[:, None], other=0)
        if C > BLOCK_C:
            q = tl.load(q_rows + c[None, :] * stride_qc, mask=row_mask[:, None] & (c < C)[None, :], other=0)
        scores = tl.dot(q, k, scores, input_precision=PRECISION)
    if METRIC != "dot":
        key_term = tl.load(k_terms + first + n, mask=inside, other=0)
        scores = combine_terms(scores, query_term, key_term[None, :], METRIC)
    if N % BLOCK_N != 0:
        scores = tl.where(inside[None, :], scores, float("-inf"))
    return scores


@triton.jit
def _popcount(x):
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return ((x * 0x01010101) >> 24) & 0xFF


@triton.jit
def _keep(hit, scores, kept_0, kept_1, kept_2, kept_3, kept_4, kept_5, DEPTH: tl.constexpr):
    """Push ``scores`` into the shift registers of the columns that are ``hit``; places past ``DEPTH`` stay unused."""
    if DEPTH > 5:
        kept_5 = tl.where(hit, kept_4, kept_5)
    if DEPTH > 4:
        kept_4 = tl.where(hit, kept_3, kept_4)
    if DEPTH > 3:
        kept_3 = tl.where(hit, kept_2, kept_3)
    if DEPTH > 2:
        kept_2 = tl.where(hit, kept_1, kept_2)
    if DEPTH > 1:
        kept_1 = tl.where(hit, kept_0, kept_1)
    return tl.where(hit, scores, kept_0), kept_1, kept_2, kept_3, kept_4, kept_5


@triton.jit
def _prefix_sum(count, BLOCK_N: tl.constexpr):
    """Sums ``[BLOCK_B, BLOCK_N]`` up to and with each column, on the tensor cores; exact below 2^11."""
    n = tl.arange(0, BLOCK_N)
    return tl.dot(count.to(tl.float16), (n[:, None] <= n[None, :]).to(tl.float16)).to(tl.int32)


@triton.jit
def _write_survivors(
    lists, row_mask, found, first, total, through, segment, bits, kept_0, kept_1, kept_2, kept_3, kept_4, kept_5,
    DEPTH: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, PLACES: tl.constexpr, CAPACITY: tl.constexpr,
    LOG_N: tl.constexpr,
):  # fmt: skip
    """Append kept survivors to the lists of the rows: of each row's ``total``, ``PLACES`` from the ``first`` on."""
    row = tl.arange(0, BLOCK_B)
    place = first + tl.arange(0, PLACES)[None, :]
    column = tl.zeros([BLOCK_B, PLACES], dtype=tl.int32)  # of the survivor in each place
    before = column  # survivors in the columns before it
    for j in tl.static_range(LOG_N):
        reached = tl.gather(through, column + ((BLOCK_N >> (j + 1)) - 1), 1)
        before = tl.where(reached <= place, reached, before)
        column = tl.where(reached <= place, column + (BLOCK_N >> (j + 1)), column)
    depth = place - before
    score = tl.gather(kept_0, column, 1)
    for d in tl.static_range(1, DEPTH):
        if d == 1:
            kept = kept_1
        elif d == 2:
            kept = kept_2
        elif d == 3:
            kept = kept_3
        elif d == 4:
            kept = kept_4
        else:
            kept = kept_5
        score = tl.where(depth == d, tl.gather(kept, column, 1), score)
    source = tl.gather(bits, column, 1)
    for d in tl.static_range(1, DEPTH):
        source = tl.where(depth >= d, source & (source - 1), source)
    lowest = (source & -source).to(tl.float32).to(tl.int32, bitcast=True)
    block_of = ((lowest >> 23) & 0xFF) - 127  # the exponent of a power of two
    index = (segment + block_of) * BLOCK_N + column
    where = found[:, None] + place
    tl.store(
        lists + (row[:, None] * CAPACITY + where), rank32(score, index),
        mask=row_mask[:, None] & (place < total[:, None]) & (where < CAPACITY),
    )  # fmt: skip


@triton.jit(do_not_specialize=["B"])
def _product_key_topk_survivors_fwd_kernel(
    q_ptr, k_ptr, q_term_ptr, k_term_ptr, lists_ptr, counts_ptr,
    B, H, stride_qb, stride_qh, stride_qa, stride_qc, stride_kh, stride_ka, stride_kn, stride_kc,
    N: tl.constexpr, C: tl.constexpr, K: tl.constexpr, METRIC: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
    PLACES: tl.constexpr, CAPACITY: tl.constexpr, DEPTH: tl.constexpr, ROUNDS: tl.constexpr, LOG_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    BLOCKS: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    first_row = tl.program_id(0).to(tl.int64) * BLOCK_B
    head_axis = tl.program_id(1).to(tl.int64)
    row = tl.arange(0, BLOCK_B)  # all but the base pointers in 32 bits: registers are what this kernel is short of
    row_mask = row < tl.minimum(B - first_row, BLOCK_B).to(tl.int32)
    n = tl.arange(0, BLOCK_N)
    q_base = q_ptr + first_row * stride_qb + (head_axis // 2) * stride_qh + (head_axis % 2) * stride_qa
    q_rows = (q_base + row.to(tl.int64) * stride_qb)[:, None]
    k_base = k_ptr + (head_axis // 2) * stride_kh + (head_axis % 2) * stride_ka
    k_columns = (k_base + n.to(tl.int64) * stride_kn)[None, :]
    query_term = tl.zeros([BLOCK_B, 1], dtype=tl.float32)
    k_terms = k_term_ptr
    if METRIC != "dot":
        query_term = tl.load(q_term_ptr + first_row * (2 * H) + head_axis + row * (2 * H), mask=row_mask, other=0)[
            :, None
        ]
        k_terms = k_term_ptr + head_axis * N
    c = tl.arange(0, BLOCK_C)
    q = tl.load(q_rows + c[None, :].to(tl.int64) * stride_qc, mask=row_mask[:, None] & (c < C)[None, :], other=0)

    best = tl.full([BLOCK_B, BLOCK_N], float("-inf"), dtype=tl.float32)
    for block in range(BLOCKS):
        scores = _block_scores(
            q, q_rows, row_mask, query_term, k_columns, k_terms, block * BLOCK_N,
            stride_qc, stride_kn, stride_kc, N, C, METRIC, BLOCK_B, BLOCK_N, BLOCK_C, PRECISION,
        )  # fmt: skip
        best = tl.maximum(best, scores)  # the maximum of a score and NaN is the score
    bound = tl.min(tl.where((n < N)[None, :], best, float("inf")), axis=1)
    above = tl.max(best, axis=1)
    for _ in range(ROUNDS):
        middle = 0.5 * (bound + above)
        enough = tl.sum((best >= middle[:, None]).to(tl.int32), axis=1) >= K
        bound = tl.where(enough, middle, bound)
        above = tl.where(enough, above, middle)

    lists = lists_ptr + (head_axis * B + first_row) * CAPACITY
    found = tl.zeros([BLOCK_B], dtype=tl.int32)
    # A bound of -inf would let -inf and NaN tie.
    overflow = tl.max(tl.where(row_mask & ~(bound > float("-inf")), 1, 0))
    bound = tl.where(row_mask, bound, float("inf"))  # rows past the last have no survivors
    for segment in tl.range(0, BLOCKS, SEGMENT, disable_licm=True):  # what is hoisted takes registers, and spills
        blocks = tl.minimum(SEGMENT, BLOCKS - segment)
        bits = tl.zeros([BLOCK_B, BLOCK_N], dtype=tl.int32)  # of a column: the blocks whose score reaches the bound
        kept_0 = tl.zeros([BLOCK_B, BLOCK_N], dtype=tl.float32)
        kept_1 = kept_0
        kept_2 = kept_0
        kept_3 = kept_0
        kept_4 = kept_0
        kept_5 = kept_0
        for step in range(blocks):
            block = blocks - 1 - step
            scores = _block_scores(
                q, q_rows, row_mask, query_term, k_columns, k_terms, (segment + block) * BLOCK_N,
                stride_qc, stride_kn, stride_kc, N, C, METRIC, BLOCK_B, BLOCK_N, BLOCK_C, PRECISION,
            )  # fmt: skip
            hit = scores >= bound[:, None]
            bits = tl.where(hit, bits | (1 << block), bits)
            kept_0, kept_1, kept_2, kept_3, kept_4, kept_5 = _keep(
                hit, scores, kept_0, kept_1, kept_2, kept_3, kept_4, kept_5, DEPTH
            )
        count = _popcount(bits)
        crowded = tl.max(count) > DEPTH
        count = tl.minimum(count, DEPTH)
        through = _prefix_sum(count, BLOCK_N)
        total = tl.sum(count, axis=1)
        for first in tl.range(0, tl.minimum(tl.max(total), CAPACITY), PLACES, num_stages=1):  # mostly once
            _write_survivors(
                lists, row_mask, found, first, total, through, segment, bits,
                kept_0, kept_1, kept_2, kept_3, kept_4, kept_5,
                DEPTH, BLOCK_B, BLOCK_N, PLACES, CAPACITY, LOG_N,
            )  # fmt: skip
        found += total
        overflow = tl.maximum(overflow, tl.max((found > CAPACITY).to(tl.int32)))
        if crowded and overflow == 0:  # a column has more survivors than its register holds: count again, then store
            count = tl.zeros([BLOCK_B, BLOCK_N], dtype=tl.int32)
            for block in tl.range(blocks, num_stages=1):
                scores = _block_scores(
                    q, q_rows, row_mask, query_term, k_columns, k_terms, (segment + block) * BLOCK_N,
                    stride_qc, stride_kn, stride_kc, N, C, METRIC, BLOCK_B, BLOCK_N, BLOCK_C, PRECISION,
                )  # fmt: skip
                count += (scores >= bound[:, None]).to(tl.int32)
            count = tl.maximum(count - DEPTH, 0)
            through = _prefix_sum(count, BLOCK_N)
            where = found[:, None] + through - count
            found += tl.sum(count, axis=1)
            overflow = tl.maximum(overflow, tl.max((found > CAPACITY).to(tl.int32)))
            seen = tl.zeros([BLOCK_B, BLOCK_N], dtype=tl.int32)
            for block in tl.range(blocks, num_stages=1):
                scores = _block_scores(
                    q, q_rows, row_mask, query_term, k_columns, k_terms, (segment + block) * BLOCK_N,
                    stride_qc, stride_kn, stride_kc, N, C, METRIC, BLOCK_B, BLOCK_N, BLOCK_C, PRECISION,
                )  # fmt: skip
                hit = scores >= bound[:, None]
                left = hit & (seen >= DEPTH)
                tl.store(
                    lists + (row[:, None] * CAPACITY + where), rank32(scores, (segment + block) * BLOCK_N + n[None, :]),
                    mask=row_mask[:, None] & left & (where < CAPACITY),
                )  # fmt: skip
                where += left.to(tl.int32)
                seen += hit.to(tl.int32)

    # A row with fewer than K means that the two passes rounded a score at the bound differently, or a NaN in the bound.
    overflow = tl.maximum(overflow, tl.max(tl.where(row_mask & (found < K), 1, 0)))
    if overflow > 0:
        tl.debug_barrier()  # the lists that are written over are another thread's
        ranked_best = tl.full([BLOCK_B, BLOCK_K], LOWEST, dtype=tl.int64)
        for block in tl.range(BLOCKS, num_stages=1):
            first = block * BLOCK_N
            scores = _block_scores(
                q, q_rows, row_mask, query_term, k_columns, k_terms, first,
                stride_qc, stride_kn, stride_kc, N, C, METRIC, BLOCK_B, BLOCK_N, BLOCK_C, PRECISION,
            )  # fmt: skip
            ranked = tl.where((first + n < N)[None, :], rank32(scores, first + n[None, :]), LOWEST)
            ranked = tl.topk(ranked, BLOCK_K)
            ranked_best = tl.topk(tl.reshape(tl.join(ranked_best, ranked), [BLOCK_B, 2 * BLOCK_K]), BLOCK_K)
        k = tl.arange(0, BLOCK_K)
        tl.store(lists + (row[:, None] * CAPACITY + k[None, :]), ranked_best, mask=row_mask[:, None] & (k < K)[None, :])
        found = tl.full([BLOCK_B], K, dtype=tl.int32)
    tl.store(counts_ptr + head_axis * B + first_row + row, found, mask=row_mask)
