"""Scores of a tile of query halves against one block of sub-keys after another, on the tensor cores."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .packed_order import combine_terms


class ScoreTile(NamedTuple):
    """``BLOCK_B`` query halves of one head and axis, and the ``N`` sub-keys of that head and axis.

    Attributes:
        q: ``[BLOCK_B, BLOCK_C]``, the first ``BLOCK_C`` columns of the queries; all of them if ``C <= BLOCK_C``.
        q_rows: ``[BLOCK_B, 1]`` pointers to the first element of each query half.
        row_mask: ``[BLOCK_B]``, False past the last row.
        q_term: ``[BLOCK_B, 1]`` float32, the term that the metric needs for a query half (``metric.py``).
        k_columns: ``[1, BLOCK_N]`` pointers to the first element of each sub-key of the first block.
        k_term_ptr: pointer to the metric's term for the first sub-key, float32.
        stride_qc, stride_kn, stride_kc: strides of a query's columns, of sub-keys and of their columns.
    """

    q: Any
    q_rows: Any
    row_mask: Any
    q_term: Any
    k_columns: Any
    k_term_ptr: Any
    stride_qc: Any
    stride_kn: Any
    stride_kc: Any


@triton.jit
def block_scores(
    tile, first, N: tl.constexpr, C: tl.constexpr, METRIC: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores ``[BLOCK_B, BLOCK_N]`` float32 of the block of sub-keys that begins at ``first``; -inf past the last."""
    n = tl.arange(0, BLOCK_N)
    valid = first + n < N
    k_block = tile.k_columns + tl.cast(first, tl.int64) * tile.stride_kn  # [1, BLOCK_N] pointers
    scores = tl.zeros([BLOCK_B, BLOCK_N], dtype=tl.float32)
    q = tile.q
    for c_first in range(0, C, BLOCK_C):
        c = (c_first + tl.arange(0, BLOCK_C)).to(tl.int64)
        k_pointers = k_block + c[:, None] * tile.stride_kc  # [BLOCK_C, BLOCK_N]
        if C % BLOCK_C == 0 and N % BLOCK_N == 0:
            k = tl.load(k_pointers)
        else:
            k = tl.load(k_pointers, mask=valid[None, :] & (c < C)[:, None], other=0)
        if C > BLOCK_C:  # else tile.q holds all columns
            mask = tile.row_mask[:, None] & (c < C)[None, :]
            q = tl.load(tile.q_rows + c[None, :] * tile.stride_qc, mask=mask, other=0)
        scores = tl.dot(q, k, scores, input_precision=PRECISION)
    if METRIC != "dot":
        k_term = tl.load(tile.k_term_ptr + first + n, mask=valid, other=0)
        scores = combine_terms(scores, tile.q_term, k_term[None, :], METRIC)
    if N % BLOCK_N != 0:
        scores = tl.where(valid[None, :], scores, float("-inf"))
    return scores
