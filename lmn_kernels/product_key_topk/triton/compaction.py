"""Stream compaction: where the marked elements of a tile go in a list that has no gaps.

A column of the tile meets one element in each of up to 32 blocks, and bit s of its int32 marks the element of block s.
A prefix sum of the numbers of bits over the columns gives places, and a binary search finds the column that fills a
place.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def popcount(x):
    """Number of bits set in each int32; the masks remove the copies of the sign bit that ``>>`` shifts in."""
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return ((x * 0x01010101) >> 24) & 0xFF


@triton.jit
def prefix_sum(count, BLOCK_N: tl.constexpr):
    """Sums ``[BLOCK_B, BLOCK_N]`` of ``count`` up to and with each column: a product with a triangle of ones.

    The tensor cores sum in float32, so the result is exact for counts up to 2^11, which float16 holds exactly.
    """
    n = tl.arange(0, BLOCK_N)
    return tl.dot(count.to(tl.float16), (n[:, None] <= n[None, :]).to(tl.float16)).to(tl.int32)


@triton.jit
def column_of_place(
    place, through, PLACES: tl.constexpr, LOG_N: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """Column ``[BLOCK_B, PLACES]`` whose survivors include the one in each place, and how many precede that column.

    Binary search in ``through [BLOCK_B, BLOCK_N]``, the survivors up to and with each column: ``column`` is the first
    one with ``through > place``, and ``before`` is ``through`` of the column to its left. A place past the last
    survivor gives the last column. LOG_N is log2 of ``BLOCK_N``.
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
    """Position of the lowest bit that is set: the exponent of that power of two as a float.

    Bit 31 gives -2^31, whose exponent is 31 too; 0, which has no such bit, gives -127.
    """
    power = (bits & -bits).to(tl.float32).to(tl.int32, bitcast=True)
    return ((power >> 23) & 0xFF) - 127
