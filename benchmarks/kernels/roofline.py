"""The least bytes and operations of a pass, and the share of the machine's measured limit that a time reaches.

With s bytes an element, E = B * H * K entries and U touched slots:

========================  =============================================================  ==================
pass                      bytes                                                          operations
========================  =============================================================  ==================
router forward            queries 2BHCs + keys 2HNCs + scores 4E + slots 8E              4BHNC
router backward           scores' gradient and slots 12E + queries, keys read, their     8EC
                          gradients written 2(2BHCs + 2HNCs)
bag forward               gathered rows EDs + slots and weights E(8 + w) + output BDs     2ED
bag backward              one row for each entry EDs + slots and weights E(8 + w) +      4ED
                          weights' gradient Ew + the values' gradient: UDs as sparse
                          rows, MDs dense
layer                     router + bag; weights and slots are read back                  sum
========================  =============================================================  ==================

w is s for a bag, 4 within a layer. Gathered rows count once for each use. A cache that holds the hot ones can serve
them faster than memory does, so under a power law a share above one is possible. Scores are counted at the rate of the
matrix units for the type of the inputs.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.kernels.problems import DTYPES, Case

PASSES = ("forward", "backward", "both")


class Floor(NamedTuple):
    """Bytes to move and operations to do (a multiplication and an addition are two)."""

    bytes: int
    operations: int

    def __add__(self, other: object) -> Floor:
        if not isinstance(other, Floor):
            return NotImplemented
        return Floor(self.bytes + other.bytes, self.operations + other.operations)

    def seconds(self, bytes_per_s: float, operations_per_s: float) -> float:
        """The longer of moving the bytes and doing the operations; both can go on at once."""
        return max(self.bytes / bytes_per_s, self.operations / operations_per_s)


def floor_of(case: Case, pass_: str, gradient_rows: int) -> Floor:
    """The floor of a pass of a case.

    Args:
        case: op, shape and type.
        pass_: ``"forward"``, ``"backward"`` or ``"both"``.
        gradient_rows: rows of the values' gradient that are written, U for sparse rows and M for a dense gradient.

    Raises:
        ValueError: the pass is unknown.
    """
    if pass_ not in PASSES:
        raise ValueError(f"floor_of: pass_ must be one of {', '.join(PASSES)}, got {pass_!r}")
    if pass_ == "both":
        return floor_of(case, "forward", gradient_rows) + floor_of(case, "backward", gradient_rows)
    floor = Floor(0, 0)
    if case.op != "bag":
        floor += _router(case, pass_)
    if case.op != "router":
        floor += _bag(case, pass_, gradient_rows)
    return floor


def _router(case: Case, pass_: str) -> Floor:
    shape, size = case.shape, DTYPES[case.dtype].itemsize
    inputs = 2 * shape.H * shape.C * size * (shape.B + shape.N)
    entries = shape.B * shape.bag
    if pass_ == "forward":
        return Floor(inputs + 12 * entries, 4 * shape.B * shape.H * shape.N * shape.C)
    return Floor(12 * entries + 2 * inputs, 8 * entries * shape.C)


def _bag(case: Case, pass_: str, gradient_rows: int) -> Floor:
    shape, size = case.shape, DTYPES[case.dtype].itemsize
    weight = 4 if case.op == "layer" else size
    entries = shape.B * shape.bag
    row = shape.D * size
    rows = entries * row + entries * (8 + weight)
    if pass_ == "forward":
        return Floor(rows + shape.B * row, 2 * entries * shape.D)
    return Floor(rows + entries * weight + gradient_rows * row, 4 * entries * shape.D)
