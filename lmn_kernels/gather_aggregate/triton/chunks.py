"""Steps that the kernels of ``sorted_backward.py`` share: where runs cross the borders of chunks, and sums of runs.

A "row" is the row of the output that an entry or a part is added to. Entries and parts of one row are neighbours, so
a run ends where the row changes, and the row before a chunk says whether the chunk's first run began earlier.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from ...triton import narrow


class ChunkBorders(NamedTuple):
    """How each chunk of a program begins and ends; all ``[BLOCK_C]``, and -1 stands for no row.

    With NUMBERED, ``head_row`` and ``tail_row`` are numbers of runs, and the two others are slots still: they only say
    where a run begins.

    Attributes:
        previous_row: row that the entry before the chunk goes to.
        first_row: row that the first entry of the chunk goes to.
        head_row: row of the first run, if it began in an earlier chunk.
        tail_row: row of the last run, if the next chunk continues it.
        tail_started_here: whether the last run began in this chunk. If not, it fills the chunk: its sum is the head,
            and the tail is zeros of the same row, not -1, which would part this head from the next chunk's.
    """

    previous_row: Any
    first_row: Any
    head_row: Any
    tail_row: Any
    tail_started_here: Any


@triton.jit
def load_rows(rows_ptr, e, mask, M, POSITION: tl.constexpr):
    """Row that each entry or part goes to; -1 where it is masked or, if there is an M, outside the table."""
    rows = tl.load(rows_ptr + e) if mask is None else tl.load(rows_ptr + e, mask=mask, other=-1)
    if M is not None:
        rows = tl.where(rows < M, rows, -1)
    return rows.to(POSITION)


@triton.jit
def chunk_borders(
    rows_ptr, runs_before_ptr, chunk, chunks, E, M, CHUNK: tl.constexpr, NUMBERED: tl.constexpr, POSITION: tl.constexpr
):  # fmt: skip
    """The :class:`ChunkBorders` of ``chunk [BLOCK_C]``; ``runs_before_ptr`` is read with NUMBERED alone."""
    start = chunk * CHUNK
    end = tl.minimum(start + CHUNK, E)
    first = load_rows(rows_ptr, start, start < E, M, POSITION)
    previous = load_rows(rows_ptr, start - 1, (start > 0) & (start < E), M, POSITION)
    last = load_rows(rows_ptr, end - 1, start < E, M, POSITION)
    following = load_rows(rows_ptr, end, start + CHUNK < E, M, POSITION)
    head, tail = first, last
    if NUMBERED:  # of the runs that begin before a border, the last one crosses it, if any does
        head = tl.load(runs_before_ptr + chunk, mask=chunk < chunks, other=0).to(first.dtype) - 1
        tail = tl.load(runs_before_ptr + chunk + 1, mask=chunk + 1 < chunks, other=0).to(first.dtype) - 1
    head = tl.where((first == previous) & (first >= 0), head, -1)
    tail = tl.where((last == following) & (last >= 0), tail, -1)
    return ChunkBorders(previous, first, head, tail, last != previous)


@triton.jit
def add_to_run(
    acc, head, started_here, starts, ends, dest_row, addend, out_ptr, d, columns, D: tl.constexpr
):  # fmt: skip
    """Add ``addend [BLOCK_C, BLOCK_D]``, a row for each chunk, to the chunk's run, and store a sum where the run ends.

    All others but ``d`` and ``columns`` are ``[BLOCK_C]``. ``starts``, ``ends``: the run starts or ends with this row.
    ``started_here``: the run began in the chunk. Its sum goes to its ``dest_row``. A run that began earlier is the
    head of the chunk: ``head`` follows its sum ``acc`` until another run starts.
    """
    started_here = started_here | starts
    acc = tl.where(starts[:, None], 0, acc) + addend
    head = tl.where(started_here[:, None], head, acc)
    out = narrow(acc, out_ptr.dtype.element_ty)
    done = ends & started_here & (dest_row >= 0)
    tl.store(out_ptr + (dest_row.to(tl.int64) * D)[:, None] + d[None, :], out, mask=done[:, None] & columns)
    return acc, head, started_here


@triton.jit
def store_parts(acc, head, borders, parts_ptr, part_rows_ptr, chunk, chunks, d, columns, D: tl.constexpr):
    """Store the two parts of each chunk, head and tail, and the rows that they go to."""
    tl.store(part_rows_ptr + 2 * chunk, borders.head_row, mask=chunk < chunks)
    tl.store(part_rows_ptr + 2 * chunk + 1, borders.tail_row, mask=chunk < chunks)
    part = parts_ptr + (chunk.to(tl.int64) * 2 * D)[:, None] + d[None, :]
    tl.store(part, head, mask=(borders.head_row >= 0)[:, None] & columns)
    tail = tl.where(borders.tail_started_here[:, None], acc, 0)
    tl.store(part + D, tail, mask=(borders.tail_row >= 0)[:, None] & columns)
