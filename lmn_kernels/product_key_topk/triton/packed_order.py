"""Scores as integers that compare in the contract's order, and the arithmetic of scores that the router kernels share.

A float32 score and its index are packed into one int64: the score's bits, made monotone, in the high half and the
reversed index in the low half. One comparison then means "higher score, NaN last, then lower index". A float64 score
takes all 64 bits; its index is compared separately.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = tl.constexpr(-(2**63))  # marks an empty place: below every rank of a score, that of NaN included


@triton.jit
def rank32(scores, index):
    """int64 whose order is: higher score, NaN last, lower index. It is above LOWEST for an index below 2^31 - 1."""
    bits = tl.where(scores == 0, 0.0, scores).to(tl.int32, bitcast=True)  # -0.0 equals 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    ordered = tl.where(scores != scores, -0x7FFFFFFF - 1, ordered)
    return (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - index).to(tl.int64)


@triton.jit
def unrank32(ranked):
    """Score and index that :func:`rank32` packed; a NaN comes back as some NaN, and so does LOWEST."""
    ordered = (ranked >> 32).to(tl.int32)
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    return bits.to(tl.float32, bitcast=True), 0x7FFFFFFF - (ranked & 0x7FFFFFFF).to(tl.int32)


@triton.jit
def rank64(scores):
    """int64 in the order of the scores, NaN lowest, and above LOWEST."""
    wide = scores.to(tl.float64)
    bits = tl.where(wide == 0, 0.0, wide).to(tl.int64, bitcast=True)
    ordered = bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)
    return tl.where(wide != wide, LOWEST + 1, ordered)


@triton.jit
def comes_after(ranked, index, last_rank, last_index):
    """Whether (``ranked``, ``index``) comes after another such pair in the order: higher rank, then lower index."""
    return (ranked < last_rank) | ((ranked == last_rank) & (index > last_index))


@triton.jit
def combine_terms(dots, q_term, k_term, METRIC: tl.constexpr):
    """Scores from dot products and the metric's terms, which broadcast to them: ``metric.combine_terms`` in Triton."""
    if METRIC == "cosine":
        return dots * q_term * k_term
    if METRIC == "l2":
        scores = 2 * dots - k_term - q_term
        return tl.where(scores > 0, 0.0, scores)  # rounding must not make a distance negative
    return dots


@triton.jit
def add_scores(score_0, score_1):
    """Sum of the scores of both axes, in which -inf wins over +inf; only NaN gives NaN."""
    sums = score_0 + score_1
    clash = (sums != sums) & (score_0 == score_0) & (score_1 == score_1)
    return tl.where(clash, float("-inf"), sums)


@triton.jit
def activate_rows(scores, chosen, ACTIVATION: tl.constexpr, AXIS: tl.constexpr):
    """The activation of the ``chosen`` scores along ``AXIS``, or with "none" these scores; a NaN counts as -inf."""
    scores = tl.where(scores == scores, scores, float("-inf"))
    if ACTIVATION == "softmax":
        scores = tl.where(chosen, scores, float("-inf"))
        best = tl.expand_dims(tl.max(scores, axis=AXIS), AXIS)
        shares = tl.where(chosen, tl.exp(tl.where(scores == best, 0.0, scores - best)), 0.0)
        scores = shares / tl.expand_dims(tl.sum(shares, axis=AXIS), AXIS)
    elif ACTIVATION == "sigmoid":
        scores = tl.sigmoid(scores)
    elif ACTIVATION == "relu":
        scores = tl.maximum(scores, 0.0)
    return scores
