"""Pair selection after ``survivors.py``: sort the lists of both axes, take the K best pairs, apply the activation.

A column of a tile is a row of the batch, and one thread's: it sorts its survivors with the networks of ``network.py``,
writes the sorted lists back over them, and reads them again by the ranks of the staircase. Pairs come in chunks
(``staircase.py``), the first ones sorted by construction, so most of them need a merge and no sort.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .network import merge_best, merge_bitonic, sort_columns
from .ordering import LOWEST, activate_rows, add_scores, list_rows, load_score, rank32, unrank32


@triton.jit
def _pairs_of_chunk(
    chunks_ptr, chunk, first_list, second_list, row_mask, K: tl.constexpr, BLOCK_K: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    """Ranked sums ``[BLOCK_K, TILE]`` of one chunk of rank pairs."""
    p = tl.arange(0, BLOCK_K)[:, None]
    first_rank = tl.load(chunks_ptr + chunk * 2 * BLOCK_K + p)  # [BLOCK_K, 1]
    second_rank = tl.load(chunks_ptr + chunk * 2 * BLOCK_K + BLOCK_K + p)
    some = row_mask & (first_rank < K)
    first = load_score(first_list + first_rank * TILE, some)
    second = load_score(second_list + second_rank * TILE, some)
    return tl.where(first_rank < K, rank32(add_scores(first, second), first_rank * BLOCK_K + second_rank), LOWEST)


@triton.jit(do_not_specialize=["B", "chunks"])
def _product_key_topk_lists_fwd_kernel(
    lists_ptr, counts_ptr, chunks_ptr, scores_ptr, slots_ptr,
    B, H, chunks, N: tl.constexpr, K: tl.constexpr, CAPACITY: tl.constexpr, ACTIVATION: tl.constexpr,
    BLOCK_K: tl.constexpr, LOG_K: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, TILE)
    first_row = tl.program_id(0).to(tl.int64) * TILE
    b = first_row + row
    row = tl.max_contiguous(row, 1)  # loads of pairs of rows would put the lists of two rows into one thread
    head = tl.program_id(1).to(tl.int64)
    row_mask = (b < B)[None, :]
    p = tl.arange(0, BLOCK_K)[:, None]
    for axis in range(2):
        count = tl.load(counts_ptr + (head * 2 + axis) * B + b, mask=b < B, other=0)[None, :]
        survivors = list_rows(lists_ptr, head * 2 + axis, first_row, B, CAPACITY, TILE) + (p * TILE + row[None, :])
        best = tl.load(survivors, mask=p < count, other=LOWEST)  # [BLOCK_K, TILE]
        best = sort_columns(best, BLOCK_K, LOG_K, TILE, False)
        longest = tl.max(tl.max(count, axis=1), axis=0)
        for start in range(BLOCK_K, tl.minimum(longest, CAPACITY), BLOCK_K):
            more = tl.load(survivors + start * TILE, mask=start + p < count, other=LOWEST)
            best = merge_best(best, sort_columns(more, BLOCK_K, LOG_K, TILE, True), BLOCK_K, LOG_K, TILE)
        tl.store(survivors, best, mask=row_mask)
    tl.debug_barrier()  # a thread reads what it wrote, but nothing says that it must be the same thread

    first_list = list_rows(lists_ptr, head * 2, first_row, B, CAPACITY, TILE) + row[None, :]
    second_list = list_rows(lists_ptr, head * 2 + 1, first_row, B, CAPACITY, TILE) + row[None, :]
    best = _pairs_of_chunk(chunks_ptr, 0, first_list, second_list, row_mask, K, BLOCK_K, TILE)  # sorted, best first
    if K > 1:
        pairs = _pairs_of_chunk(chunks_ptr, 1, first_list, second_list, row_mask, K, BLOCK_K, TILE)  # sorted, best last
        best = merge_best(best, pairs, BLOCK_K, LOG_K, TILE)
    if K > 3:
        pairs = _pairs_of_chunk(chunks_ptr, 2, first_list, second_list, row_mask, K, BLOCK_K, TILE)  # falls, then rises
        best = merge_best(best, merge_bitonic(pairs, BLOCK_K, LOG_K, TILE, True), BLOCK_K, LOG_K, TILE)
    for chunk in range(3, chunks):  # a loop keeps the compiler from working on several at once, and from spills
        pairs = _pairs_of_chunk(chunks_ptr, chunk, first_list, second_list, row_mask, K, BLOCK_K, TILE)
        best = merge_best(best, sort_columns(pairs, BLOCK_K, LOG_K, TILE, True), BLOCK_K, LOG_K, TILE)
    scores, pair = unrank32(best)
    mask = row_mask & (p < K)
    _, i = unrank32(tl.load(first_list + pair // BLOCK_K * TILE, mask=mask, other=0))
    _, j = unrank32(tl.load(second_list + pair % BLOCK_K * TILE, mask=mask, other=0))
    scores = activate_rows(scores, p < K, ACTIVATION, 0)
    out = (b[None, :] * H + head) * K + p
    tl.store(scores_ptr + out, scores, mask=mask)
    tl.store(slots_ptr + out, i.to(tl.int64) * N + j, mask=mask)


@triton.jit(do_not_specialize=["B"])
def _product_key_topk_few_lists_fwd_kernel(
    lists_ptr, counts_ptr, ranks_ptr, scores_ptr, slots_ptr,
    B, H, N: tl.constexpr, K: tl.constexpr, PLACES: tl.constexpr, CAPACITY: tl.constexpr, P: tl.constexpr,
    ACTIVATION: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_R: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    head = tl.program_id(1).to(tl.int64)
    row_mask = (b < B)[:, None]
    place = tl.arange(0, PLACES)[None, :]
    k = tl.arange(0, BLOCK_K)[None, :]
    for axis in range(2):
        count = tl.load(counts_ptr + (head * 2 + axis) * B + b, mask=b < B, other=0)[:, None]
        survivors = list_rows(lists_ptr, head * 2 + axis, b, B, CAPACITY, TILE)[:, None]
        best = tl.topk(tl.load(survivors + place * TILE, mask=place < count, other=LOWEST), BLOCK_K)
        for start in range(PLACES, tl.minimum(tl.max(tl.max(count, axis=1), axis=0), CAPACITY), BLOCK_K):
            more = tl.load(survivors + (start + k) * TILE, mask=start + k < count, other=LOWEST)
            best = tl.topk(tl.reshape(tl.join(best, more), [BLOCK_R, 2 * BLOCK_K]), BLOCK_K)
        tl.debug_barrier()  # every survivor is read before a list is written over it
        tl.store(survivors + k * TILE, best, mask=row_mask & (k < K))
    tl.debug_barrier()

    first_list = list_rows(lists_ptr, head * 2, b, B, CAPACITY, TILE)[:, None]
    second_list = list_rows(lists_ptr, head * 2 + 1, b, B, CAPACITY, TILE)[:, None]
    p = tl.arange(0, BLOCK_P)[None, :]
    first_rank = tl.load(ranks_ptr + p, mask=p < P, other=0)
    second_rank = tl.load(ranks_ptr + P + p, mask=p < P, other=0)
    first = load_score(first_list + first_rank * TILE, row_mask & (p < P))
    second = load_score(second_list + second_rank * TILE, row_mask & (p < P))
    pairs = tl.where(p < P, rank32(add_scores(first, second), p), LOWEST)
    pairs = tl.topk(pairs, BLOCK_K) if BLOCK_P > BLOCK_K else tl.sort(pairs, descending=True)
    scores, pair = unrank32(pairs)
    mask = row_mask & (k < K)
    first_rank = tl.load(ranks_ptr + pair, mask=mask, other=0)
    second_rank = tl.load(ranks_ptr + P + pair, mask=mask, other=0)
    _, i = unrank32(tl.load(first_list + first_rank * TILE, mask=mask, other=0))
    _, j = unrank32(tl.load(second_list + second_rank * TILE, mask=mask, other=0))
    scores = activate_rows(scores, k < K, ACTIVATION, 1)
    out = (b[:, None] * H + head) * K + k
    tl.store(scores_ptr + out, scores, mask=mask)
    tl.store(slots_ptr + out, i.to(tl.int64) * N + j, mask=mask)
