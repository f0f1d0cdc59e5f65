"""Bitonic networks along the first axis of a ``[P, R]`` tensor of int64, one list a column.

A thread that owns a column sorts it in its own registers: a comparator is six instructions and no shuffle, where
``tl.sort``, which spreads a row over lanes, needs about twelve for each element. That takes a layout with R along
the threads, which loads with R innermost give.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _compare(x, ascending, P: tl.constexpr, STRIDE: tl.constexpr, R: tl.constexpr):
    """Order each pair of elements ``STRIDE`` apart; ``ascending`` is a flag or one for each group of 2 * STRIDE."""
    pairs = tl.permute(tl.reshape(x, [P // (2 * STRIDE), 2, STRIDE, R]), (0, 2, 3, 1))
    left, right = tl.split(pairs)
    first = tl.where((left < right) != ascending, right, left)
    second = (left ^ right) ^ first  # the other one; a second select would compare again
    return tl.reshape(tl.permute(tl.join(first, second), (0, 3, 1, 2)), [P, R])


@triton.jit
def merge_bitonic(x, P: tl.constexpr, LOG_P: tl.constexpr, R: tl.constexpr, ASCENDING: tl.constexpr):
    """Sort columns that rise and then fall, or fall and then rise."""
    for step in tl.static_range(LOG_P):
        x = _compare(x, ASCENDING, P, P >> (step + 1), R)
    return x


@triton.jit
def sort_columns(x, P: tl.constexpr, LOG_P: tl.constexpr, R: tl.constexpr, ASCENDING: tl.constexpr):
    """Sort columns in any order."""
    for stage in tl.static_range(1, LOG_P):
        for step in tl.static_range(stage):
            rising = ((tl.arange(0, P >> (stage - step)) >> step) & 1)[:, None, None] != 0
            x = _compare(x, rising, P, 1 << (stage - 1 - step), R)
    return merge_bitonic(x, P, LOG_P, R, ASCENDING)


@triton.jit
def merge_best(best, ascending, P: tl.constexpr, LOG_P: tl.constexpr, R: tl.constexpr):
    """The P best of ``best``, sorted with the best first, and of ``ascending``, sorted with the best last."""
    return merge_bitonic(tl.where(best > ascending, best, ascending), P, LOG_P, R, False)
