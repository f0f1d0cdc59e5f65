"""Stream compaction: where the marked elements of a tile go in a list that has no gaps.

Elements are marked by bits, an int32 for each row and column of the tile; a prefix sum of their numbers over the
columns gives places, and a binary search finds the column that fills a place.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def popcount(x):
    """Number of bits set in each int32."""
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return ((x * 0x01010101) >> 24) & 0xFF


@triton.jit
def prefix_sum(count, BLOCK_N: tl.constexpr):
    """Sums ``[BLOCK_B, BLOCK_N]`` up to and with each column, on the tensor cores; exact below 2^11."""
    n = tl.arange(0, BLOCK_N)
    return tl.dot(count.to(tl.float16), (n[:, None] <= n[None, :]).to(tl.float16)).to(tl.int32)


@triton.jit
def column_of_place(
    place, through, PLACES: tl.constexpr, LOG_N: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """Column ``[BLOCK_B, PLACES]`` whose survivors include the one in each place, and how many precede that column.

    Binary search in ``through [BLOCK_B, BLOCK_N]``, the survivors up to and with each column.
    """
    column = tl.zeros([BLOCK_B, PLACES], dtype=tl.int32)
    before = column
    for j in tl.static_range(LOG_N):
        reached = tl.gather(through, column + ((BLOCK_N >> (j + 1)) - 1), 1)
        before = tl.where(reached <= place, reached, before)
        column = tl.where(reached <= place, column + (BLOCK_N >> (j + 1)), column)
    return column, before


@triton.jit
def lowest_bit(bits):
    """Position of the lowest bit that is set: the exponent of that power of two as a float."""
    power = (bits & -bits).to(tl.float32).to(tl.int32, bitcast=True)
    return ((power >> 23) & 0xFF) - 127
