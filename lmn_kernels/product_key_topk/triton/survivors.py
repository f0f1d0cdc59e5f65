"""Axis selection in two passes over the scores: a bound on the K-th best, then the few that reach it.

Scores are never stored: the tensor cores compute them twice. A tile holds ``BLOCK_B`` rows, and blocks of ``BLOCK_N``
sub-keys stream past it. The phases, in the order of :func:`_product_key_topk_survivors_fwd_kernel`:

1. ``_find_bound``. Column c of a tile meets the sub-keys c, c + ``BLOCK_N``, c + 2 * ``BLOCK_N`` and so on, one in each
   block; its maximum costs one instruction a score. K columns, so K scores at least, reach the K-th best of the
   ``BLOCK_N`` column maxima, which thus bounds the K-th best score from below; a few steps of bisection find a bound
   just under it. Of N random scores about 44 reach it at K = 32, whatever N.
2. ``_collect``. The scores are computed again. Those that reach the bound are the survivors. A column keeps its own in
   a shift register of ``DEPTH`` places, and sets a bit for each block that one came from.
3. ``_append_collected``. A prefix sum over the columns gives each survivor its place in the row's list. The lists stay
   unsorted: ``pair_selection.py`` sorts them.
4. ``_append_uncollected``. Where a column has more survivors than its register holds (1 to 2 tiles in 100 for random
   scores), two more passes count and store the others.
5. ``_stream``. Where a row has more survivors than its list holds (none seen for random scores; ties by the hundred,
   infinities), or where the bound proves nothing, the tile goes through an exact streaming network instead.

The result is exact on every path; 4 and 5 only cost time. Phases 2 to 4 run for one segment of ``SEGMENT`` blocks after
another and append to the same lists. One row that needs phase 4 or 5 takes the others of its tile along.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .compaction import column_of_place, lowest_bit, popcount, prefix_sum
from .merging import best_of_both
from .packed_order import LOWEST, rank32
from .scores import ScoreTile, block_scores

SEGMENT = tl.constexpr(32)  # blocks that phases 2 to 4 handle at a time: an int32 has a bit for each


@triton.jit
def _any(mask):
    """1 if any element of ``mask`` is True, else 0."""
    return tl.max(mask.to(tl.int32))


@triton.jit
def _push(kept, scores, hit, DEPTH: tl.constexpr):
    """Shift registers ``kept``, newest first, after ``scores`` were pushed into those of the columns that are ``hit``.

    All are ``[BLOCK_B, BLOCK_N]``; the oldest score of a full register is lost. The oldest one is overwritten first: in
    the other order the assembler copies every register.
    """
    pushed: tl.tuple = ()
    for d in tl.static_range(DEPTH - 1, 0, -1):
        pushed = (tl.where(hit, kept[d - 1], kept[d]),) + pushed  # noqa: RUF005
    return (tl.where(hit, scores, kept[0]),) + pushed  # noqa: RUF005


@triton.jit
def _find_bound(
    tile, K: tl.constexpr, ROUNDS: tl.constexpr,
    N: tl.constexpr, C: tl.constexpr, METRIC: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``[BLOCK_B]`` float32: a score that at least K sub-keys of the row reach; -inf or NaN if there is none.

    In the bisection at least K column maxima reach ``bound``, always. That holds before its first step, when ``bound``
    is the lowest maximum: there are min(N, ``BLOCK_N``) columns, and both are at least K.
    """
    best = tl.full([BLOCK_B, BLOCK_N], float("-inf"), dtype=tl.float32)
    for block in range((N + BLOCK_N - 1) // BLOCK_N):
        scores = block_scores(tile, block * BLOCK_N, N, C, METRIC, BLOCK_B, BLOCK_N, BLOCK_C, PRECISION)
        best = tl.maximum(best, scores)  # the maximum of a score and NaN is the score
    exists = tl.arange(0, BLOCK_N) < N  # columns without a sub-key have no maximum
    bound = tl.min(tl.where(exists[None, :], best, float("inf")), axis=1)
    above = tl.max(best, axis=1)
    for _ in range(ROUNDS):
        middle = 0.5 * (bound + above)
        enough = tl.sum((best >= middle[:, None]).to(tl.int32), axis=1) >= K
        bound = tl.where(enough, middle, bound)
        above = tl.where(enough, above, middle)
    return bound


@triton.jit
def _collect(
    tile, bound, first_block, blocks, DEPTH: tl.constexpr,
    N: tl.constexpr, C: tl.constexpr, METRIC: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Bits ``[BLOCK_B, BLOCK_N]`` int32, set for the blocks where a column reaches ``bound``, and shift registers.

    There are ``DEPTH`` registers ``[BLOCK_B, BLOCK_N]`` of float32. Blocks are taken from the last one down, so that
    register d holds the score of the column's d-th lowest set bit, counted from 0, and a full register has lost the
    scores of the highest bits: :func:`_append_uncollected` counts on that.

    The ``blocks`` blocks from ``first_block`` on are one segment; bit s stands for block ``first_block + s``.
    """
    bits = tl.zeros([BLOCK_B, BLOCK_N], dtype=tl.int32)
    kept: tl.tuple = ()
    for _ in tl.static_range(DEPTH):
        kept += (tl.zeros([BLOCK_B, BLOCK_N], dtype=tl.float32),)
    for step in range(blocks):
        block = blocks - 1 - step
        scores = block_scores(tile, (first_block + block) * BLOCK_N, N, C, METRIC, BLOCK_B, BLOCK_N, BLOCK_C, PRECISION)
        hit = scores >= bound[:, None]
        bits = tl.where(hit, bits | (1 << block), bits)
        kept = _push(kept, scores, hit, DEPTH)
    return bits, kept


@triton.jit
def _append_collected(
    tile, lists, found, first_block, bits, kept, count,
    DEPTH: tl.constexpr, PLACES: tl.constexpr, CAPACITY: tl.constexpr, LOG_N: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Append the collected survivors of each column to the rows' lists; return the lists' new lengths.

    ``count [BLOCK_B, BLOCK_N]``, at most ``DEPTH``, says how many a column has, ``found [BLOCK_B]`` how long the lists
    are. What lies past ``CAPACITY`` is counted and not stored.

    ``PLACES`` survivors of a row are moved at a time. Each place finds the column that fills it and gathers from there:
    a scatter from the columns takes more instructions (docs/performance/bounds.md).
    """
    row = tl.arange(0, BLOCK_B)
    through = prefix_sum(count, BLOCK_N)
    total = tl.sum(count, axis=1)  # [BLOCK_B]
    for first in tl.range(0, tl.minimum(tl.max(total), CAPACITY), PLACES, num_stages=1):  # one window of places, mostly
        place = first + tl.arange(0, PLACES)[None, :]
        column, before = column_of_place(place, through, PLACES, LOG_N, BLOCK_B, BLOCK_N)
        depth = place - before  # [BLOCK_B, PLACES]: which of its column's survivors; past ``total`` anything, masked
        score = tl.gather(kept[0], column, 1)  # [BLOCK_B, PLACES]
        for d in tl.static_range(1, DEPTH):
            score = tl.where(depth == d, tl.gather(kept[d], column, 1), score)
        source = tl.gather(bits, column, 1)
        for d in tl.static_range(1, DEPTH):
            source = tl.where(depth >= d, source & (source - 1), source)  # ``depth`` times without the lowest bit
        index = (first_block + lowest_bit(source)) * BLOCK_N + column
        list_place = found[:, None] + place
        mask = tile.row_mask[:, None] & (place < total[:, None]) & (list_place < CAPACITY)
        tl.store(lists + (row[:, None] * CAPACITY + list_place), rank32(score, index), mask=mask)
    return found + total


@triton.jit
def _append_uncollected(
    tile, lists, found, bound, first_block, blocks, DEPTH: tl.constexpr, CAPACITY: tl.constexpr,
    N: tl.constexpr, C: tl.constexpr, METRIC: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Append the survivors of each column that its ``DEPTH`` registers did not hold.

    :func:`_collect` kept those of the lowest blocks, so these are all after the first ``DEPTH``. The first pass counts
    them, which gives each column its places in the list; the second stores them.
    Returns the lists' new lengths, and 1 if one of them is past ``CAPACITY``, else 0.
    """
    row, n = tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_N)
    count = tl.zeros([BLOCK_B, BLOCK_N], dtype=tl.int32)
    for block in tl.range(blocks, num_stages=1):
        scores = block_scores(tile, (first_block + block) * BLOCK_N, N, C, METRIC, BLOCK_B, BLOCK_N, BLOCK_C, PRECISION)
        count += (scores >= bound[:, None]).to(tl.int32)
    count = tl.maximum(count - DEPTH, 0)
    list_place = found[:, None] + prefix_sum(count, BLOCK_N) - count  # [BLOCK_B, BLOCK_N]: next one of each column
    found += tl.sum(count, axis=1)
    overflow = _any(found > CAPACITY)  # here and not after the next pass, where sm_90 spills
    seen = tl.zeros([BLOCK_B, BLOCK_N], dtype=tl.int32)
    for block in tl.range(blocks, num_stages=1):
        first = (first_block + block) * BLOCK_N
        scores = block_scores(tile, first, N, C, METRIC, BLOCK_B, BLOCK_N, BLOCK_C, PRECISION)
        hit = scores >= bound[:, None]
        uncollected = hit & (seen >= DEPTH)
        mask = tile.row_mask[:, None] & uncollected & (list_place < CAPACITY)
        tl.store(lists + (row[:, None] * CAPACITY + list_place), rank32(scores, first + n[None, :]), mask=mask)
        list_place += uncollected.to(tl.int32)
        seen += hit.to(tl.int32)
    return found, overflow


@triton.jit
def _stream(
    tile, lists, K: tl.constexpr, BLOCK_K: tl.constexpr, CAPACITY: tl.constexpr,
    N: tl.constexpr, C: tl.constexpr, METRIC: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the K best of each row over its list, by an exact network that all scores pass through."""
    row, n, k = tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    best = tl.full([BLOCK_B, BLOCK_K], LOWEST, dtype=tl.int64)
    for block in tl.range((N + BLOCK_N - 1) // BLOCK_N, num_stages=1):
        first = block * BLOCK_N
        scores = block_scores(tile, first, N, C, METRIC, BLOCK_B, BLOCK_N, BLOCK_C, PRECISION)
        ranked = tl.where((first + n < N)[None, :], rank32(scores, first + n[None, :]), LOWEST)
        best = best_of_both(best, tl.topk(ranked, BLOCK_K), BLOCK_B, BLOCK_K)
    mask = tile.row_mask[:, None] & (k < K)[None, :]
    tl.store(lists + (row[:, None] * CAPACITY + k[None, :]), best, mask=mask)


@triton.jit(do_not_specialize=["B"])
def _product_key_topk_survivors_fwd_kernel(
    q_ptr, k_ptr, q_term_ptr, k_term_ptr, lists_ptr, counts_ptr,
    B, H, stride_qb, stride_qh, stride_qa, stride_qc, stride_kh, stride_ka, stride_kn, stride_kc,
    N: tl.constexpr, C: tl.constexpr, K: tl.constexpr, METRIC: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
    PLACES: tl.constexpr, CAPACITY: tl.constexpr, DEPTH: tl.constexpr, ROUNDS: tl.constexpr, LOG_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The survivors of each row on each axis: K to ``CAPACITY`` sub-keys, the K best among them, unsorted.

    A program takes ``BLOCK_B`` rows of one head and axis; grid ``(ceil(B / BLOCK_B), H * 2)``.

    In: q ``[B, H, 2, C]`` and k ``[H, 2, N, C]`` of one type, float32, bfloat16 or float16; unless METRIC is "dot",
    q_term ``[B, H, 2]`` and k_term ``[H, 2, N]``, float32.
    Out: lists ``[H * 2, B, CAPACITY]`` int64, ``rank32`` of score and sub-key; counts ``[H * 2, B]`` int32, how many of
    a list are set.

    K is at most ``BLOCK_N``. DEPTH: survivors that a column's shift register holds. ROUNDS: of the bisection. PLACES:
    survivors of a row that are moved at a time. LOG_N: log2 of ``BLOCK_N``.
    """
    BLOCKS: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    first_row = tl.program_id(0).to(tl.int64) * BLOCK_B
    head_axis = tl.program_id(1).to(tl.int64)
    row = tl.arange(0, BLOCK_B)  # all but the base pointers in 32 bits: registers are what this kernel is short of
    row_mask = row < tl.minimum(B - first_row, BLOCK_B).to(tl.int32)
    q_base = q_ptr + first_row * stride_qb + (head_axis // 2) * stride_qh + (head_axis % 2) * stride_qa
    q_rows = (q_base + row.to(tl.int64) * stride_qb)[:, None]
    k_base = k_ptr + (head_axis // 2) * stride_kh + (head_axis % 2) * stride_ka
    k_columns = (k_base + tl.arange(0, BLOCK_N).to(tl.int64) * stride_kn)[None, :]
    q_term = tl.zeros([BLOCK_B, 1], dtype=tl.float32)
    if METRIC != "dot":
        q_term_rows = q_term_ptr + first_row * (2 * H) + head_axis + row * (2 * H)
        q_term = tl.load(q_term_rows, mask=row_mask, other=0)[:, None]
        k_term_ptr += head_axis * N
    c = tl.arange(0, BLOCK_C)
    q = tl.load(q_rows + c[None, :].to(tl.int64) * stride_qc, mask=row_mask[:, None] & (c < C)[None, :], other=0)
    tile = ScoreTile(q, q_rows, row_mask, q_term, k_columns, k_term_ptr, stride_qc, stride_kn, stride_kc)
    lists = lists_ptr + (head_axis * B + first_row) * CAPACITY

    bound = _find_bound(tile, K, ROUNDS, N, C, METRIC, BLOCK_B, BLOCK_N, BLOCK_C, PRECISION)
    # A bound of -inf proves nothing: a column of NaN has that maximum, and scores past the last sub-key are -inf.
    must_stream = _any(row_mask & ~(bound > float("-inf")))
    bound = tl.where(row_mask, bound, float("inf"))  # rows past the last have no survivors
    found = tl.zeros([BLOCK_B], dtype=tl.int32)
    for first_block in tl.range(0, BLOCKS, SEGMENT, disable_licm=True):  # what is hoisted takes registers, and spills
        blocks = tl.minimum(SEGMENT, BLOCKS - first_block)
        bits, kept = _collect(
            tile, bound, first_block, blocks, DEPTH, N, C, METRIC, BLOCK_B, BLOCK_N, BLOCK_C, PRECISION
        )
        count = popcount(bits)  # [BLOCK_B, BLOCK_N]: survivors of each column, collected or not
        crowded = tl.max(count) > DEPTH
        found = _append_collected(
            tile, lists, found, first_block, bits, kept, tl.minimum(count, DEPTH),
            DEPTH, PLACES, CAPACITY, LOG_N, BLOCK_B, BLOCK_N,
        )  # fmt: skip
        must_stream = tl.maximum(must_stream, _any(found > CAPACITY))
        if crowded and must_stream == 0:
            found, must_stream = _append_uncollected(
                tile, lists, found, bound, first_block, blocks, DEPTH, CAPACITY,
                N, C, METRIC, BLOCK_B, BLOCK_N, BLOCK_C, PRECISION,
            )  # fmt: skip

    # A row with fewer than K means that the two passes rounded a score at the bound differently.
    must_stream = tl.maximum(must_stream, _any(row_mask & (found < K)))
    if must_stream > 0:
        tl.debug_barrier()  # other threads of the block wrote the lists that are written over
        _stream(tile, lists, K, BLOCK_K, CAPACITY, N, C, METRIC, BLOCK_B, BLOCK_N, BLOCK_C, PRECISION)
        found = tl.full([BLOCK_B], K, dtype=tl.int32)
    tl.store(counts_ptr + head_axis * B + first_row + row, found, mask=row_mask)
