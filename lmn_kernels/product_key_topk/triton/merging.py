"""Bitonic merges of the rows of a ``[R, P]`` tensor of int64, whose order along a row is partly known.

P is a power of two and LOG_P its log2. A row lies across the lanes of a warp; an element meets the one ``STRIDE`` away
by a sum of exclusive ors over the two, as ``a ^ (a ^ b)`` is ``b``. Triton turns that sum into one exchange between
lanes, as it does in ``tl.sort``.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _compare(x, R: tl.constexpr, P: tl.constexpr, STRIDE: tl.constexpr, ASCENDING: tl.constexpr):
    """Order each pair of elements ``STRIDE`` apart: the larger one right if ASCENDING, else left."""
    pairs = tl.reshape(x, [R * (P // (2 * STRIDE)), 2, STRIDE])
    other = pairs ^ tl.expand_dims(tl.xor_sum(pairs, axis=1), 1)  # the partner of each element
    right = (tl.arange(0, 2) == 1)[None, :, None]
    return tl.reshape(tl.where((pairs > other) == (right == ASCENDING), pairs, other), [R, P])


@triton.jit
def merge_bitonic(x, R: tl.constexpr, P: tl.constexpr, LOG_P: tl.constexpr, ASCENDING: tl.constexpr):
    """Sort rows that rise and then fall, or fall and then rise."""
    for step in tl.static_range(LOG_P):
        x = _compare(x, R, P, P >> (step + 1), ASCENDING)
    return x


@triton.jit
def merge_best(best, ascending, R: tl.constexpr, P: tl.constexpr, LOG_P: tl.constexpr):
    """The P best, best first, of ``best``, sorted with the best first, and of ``ascending``, with the best last.

    The larger ones of ``best[p]`` and ``ascending[p]`` are the P best of both, and they fall and then rise.
    """
    return merge_bitonic(tl.where(best > ascending, best, ascending), R, P, LOG_P, False)


@triton.jit
def best_of_both(best, more, R: tl.constexpr, P: tl.constexpr):
    """The P best of ``best`` and ``more``, both ``[R, P]`` in any order; the best first."""
    return tl.topk(tl.reshape(tl.join(best, more), [R, 2 * P]), P)
