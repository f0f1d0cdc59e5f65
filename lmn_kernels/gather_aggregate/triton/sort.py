"""A stable sort of the entries by slot that looks at the bits a slot has and no others.

Entry e = b * L + l of ``slots [B, L]``, E in all, is sorted by its slot: least significant digit first, digits of up to
11 bits, so a table of a million rows takes 2 passes. A pass is three launches: digits counted in each block of entries;
counts added up over the blocks; entries moved to their places. To move them, a block sorts (digit, place in the block)
as one integer in registers: then the rank of an entry among its digit is its new place less that of the first one. No
atomics, no host: the same result on every run, and it can be captured in a CUDA graph.

Bytes moved for each entry: 8 + 8 + 8 in the first pass (int64 slots counted and read, pairs written) and 4 + 8 + 8 in
others, 44 for 2 passes, and 20 for each digit and block, about half as much again. ``torch.sort`` moves 24 for each of
the 4 bytes of an int32 key, or 32 for each of the 8 of an int64 one, in more launches: about 100 or 260 for each entry.
It keeps the job where an entry or a slot does not fit into an int32. Neither has been timed on a GPU.

A slot outside [0, M) is sorted as slot 0 and its entry's bits are flipped: who reads ``order`` sees a negative number.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...launch import launch

DIGIT_BITS = 11
BLOCK = 2048
SCAN_BLOCKS, SCAN_DIGITS = 64, 16
MOST_ENTRIES = 2**31 - 2 * BLOCK  # numbers past the end of the last block must fit into an int32 too
MOST_SLOTS = 2**31


class SortedEntries(NamedTuple):
    """Entries in the order of their slots, then of their numbers; past the E-th, up to the end of a block, -1.

    Attributes:
        slots: int32, or int64 where that is too narrow, ascending; slots outside [0, M) count as 0.
        order: the same type, the entry numbers b * L + l; ~e for an entry e whose slot is outside [0, M).
    """

    slots: Tensor
    order: Tensor


def sort_entries(slots: Tensor, M: int) -> SortedEntries:
    """Sort the entries of ``slots [B, L]``; E = B * L and M must not be 0.

    The result has one element more than its blocks have, of no meaning, so that each entry has a next one.
    """
    E = slots.numel()
    blocks = E // BLOCK + 1
    if E > MOST_ENTRIES or M > MOST_SLOTS:
        return _sort_wide(slots, M, blocks * BLOCK + 1)
    bits = max((M - 1).bit_length(), 1)
    passes = -(-bits // DIGIT_BITS)
    digit_bits = -(-bits // passes)
    digits = 1 << digit_bits
    counts, before = (slots.new_empty(blocks, digits, dtype=torch.int32) for _ in range(2))
    totals = slots.new_empty(digits, dtype=torch.int32)
    source = order = slots.contiguous()
    for index in range(passes):
        keys, entries = (slots.new_empty(blocks * BLOCK + 1, dtype=torch.int32) for _ in range(2))
        meta = {"FIRST": index == 0, "SHIFT": index * digit_bits, "DIGITS": digits, "BLOCK": BLOCK, "num_warps": 4}
        launch(_gather_aggregate_sort_count_kernel, (blocks,), source, counts, E, M, **meta)
        launch(
            _gather_aggregate_sort_scan_kernel, (triton.cdiv(digits, SCAN_DIGITS),),
            counts, before, totals, blocks,
            DIGITS=digits, BLOCK=SCAN_BLOCKS, BLOCK_DIGITS=min(digits, SCAN_DIGITS), num_warps=4,
        )  # fmt: skip
        launch(
            _gather_aggregate_sort_move_kernel, (blocks,),
            source, order, counts, before, totals, keys, entries, E, M, **meta,
        )  # fmt: skip
        source, order = keys, entries
    return SortedEntries(source, order)


def _sort_wide(slots: Tensor, M: int, length: int) -> SortedEntries:
    flat = slots.reshape(-1)
    inside = (flat >= 0) & (flat < M)
    keys, order = torch.where(inside, flat, 0).long().sort(stable=True)
    order = torch.where(inside[order], order, ~order)
    return SortedEntries(*(torch.nn.functional.pad(x, (0, length - flat.shape[0]), value=-1) for x in (keys, order)))


@triton.jit
def _load_keys(source_ptr, e, E, M, FIRST: tl.constexpr):
    """Slots of entries as int32, and which of them lie in the table."""
    keys = tl.load(source_ptr + e, mask=e < E, other=0)
    if not FIRST:
        return keys, e < E
    inside = (keys >= 0) & (keys < M)
    return tl.where(inside, keys, 0).to(tl.int32), inside


@triton.jit(do_not_specialize=["E", "M"])
def _gather_aggregate_sort_count_kernel(
    source_ptr, counts_ptr, E, M,
    FIRST: tl.constexpr, SHIFT: tl.constexpr, DIGITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    e = block * BLOCK + tl.arange(0, BLOCK)
    keys, _ = _load_keys(source_ptr, e, E, M, FIRST)
    counts = tl.histogram((keys >> SHIFT) & (DIGITS - 1), DIGITS, mask=e < E)
    tl.store(counts_ptr + block.to(tl.int64) * DIGITS + tl.arange(0, DIGITS), counts)


@triton.jit(do_not_specialize=["blocks"])
def _gather_aggregate_sort_scan_kernel(
    counts_ptr, before_ptr, totals_ptr, blocks,
    DIGITS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_DIGITS: tl.constexpr,
):  # fmt: skip
    digits = tl.program_id(0) * BLOCK_DIGITS + tl.arange(0, BLOCK_DIGITS)
    total = tl.zeros([BLOCK_DIGITS], dtype=tl.int32)
    for first in range(0, blocks, BLOCK):
        block = (first + tl.arange(0, BLOCK))[:, None]
        places = block.to(tl.int64) * DIGITS + digits[None, :]
        counts = tl.load(counts_ptr + places, mask=block < blocks, other=0)
        tl.store(before_ptr + places, total[None, :] + _sum_before(counts), mask=block < blocks)
        total += tl.sum(counts, axis=0)
    tl.store(totals_ptr + digits, total)


@triton.jit(do_not_specialize=["E", "M"])
def _gather_aggregate_sort_move_kernel(
    source_ptr, order_ptr, counts_ptr, before_ptr, totals_ptr, keys_ptr, entries_ptr, E, M,
    FIRST: tl.constexpr, SHIFT: tl.constexpr, DIGITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    digit = tl.arange(0, DIGITS)
    row = block.to(tl.int64) * DIGITS + digit
    in_block = _sum_before(tl.load(counts_ptr + row))
    moves = _sum_before(tl.load(totals_ptr + digit)) + tl.load(before_ptr + row) - in_block

    i = tl.arange(0, BLOCK)
    keys, _ = _load_keys(source_ptr, block * BLOCK + i, E, M, FIRST)
    digits = tl.where(block * BLOCK + i < E, (keys >> SHIFT) & (DIGITS - 1), DIGITS)  # what is past the end goes last
    pairs = tl.sort(digits * BLOCK + i)
    digits = tl.minimum(pairs // BLOCK, DIGITS - 1)
    e = block * BLOCK + pairs % BLOCK
    keys, inside = _load_keys(source_ptr, e, E, M, FIRST)
    entries = tl.where(inside, e, ~e) if FIRST else tl.load(order_ptr + e, mask=e < E, other=0)
    place = tl.where(e < E, i + tl.gather(moves, digits, 0), block * BLOCK + i)
    tl.store(keys_ptr + place, tl.where(e < E, keys, -1))
    tl.store(entries_ptr + place, tl.where(e < E, entries, -1))


@triton.jit
def _sum_before(counts):
    """Exclusive prefix sums along the first axis."""
    return (tl.cumsum(counts, axis=0) - counts).to(tl.int32)
