"""The roofline of a pass: the bytes that it must move and the operations that it must do.

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
them faster than memory does, so under a power law a time can be shorter than the roofline. Scores are counted at the
rate of the matrix units for the type of the inputs.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.kernels.problems import DTYPES, Case

PASSES = ("forward", "backward", "both")


class Roofline(NamedTuple):
    """Bytes to move and operations to do (a multiplication and an addition are two)."""

    bytes: int
    operations: int

    def __add__(self, other: object) -> Roofline:
        if not isinstance(other, Roofline):
            return NotImplemented
        return Roofline(self.bytes + other.bytes, self.operations + other.operations)

    def seconds(self, bytes_per_s: float, operations_per_s: float) -> float:
        """The longer of moving the bytes and doing the operations; the two overlap."""
        return max(self.bytes / bytes_per_s, self.operations / operations_per_s)


def roofline_of(case: Case, pass_: str, gradient_rows: int) -> Roofline:
    """The roofline of one pass of a case.

    Args:
        case: op, shape and type.
        pass_: ``"forward"``, ``"backward"`` or ``"both"``.
        gradient_rows: rows of the values' gradient that are written, U for sparse rows and M for a dense gradient.

    Raises:
        ValueError: the pass is unknown.
    """
    if pass_ not in PASSES:
        raise ValueError(f"roofline_of: pass_ must be one of {', '.join(PASSES)}, got {pass_!r}")
    if pass_ == "both":
        return roofline_of(case, "forward", gradient_rows) + roofline_of(case, "backward", gradient_rows)
    roofline = Roofline(0, 0)
    if case.op != "bag":
        roofline += _router(case, pass_)
    if case.op != "router":
        roofline += _bag(case, pass_, gradient_rows)
    return roofline


def _router(case: Case, pass_: str) -> Roofline:
    shape, size = case.shape, DTYPES[case.dtype].itemsize
    inputs = 2 * shape.H * shape.C * size * (shape.B + shape.N)
    entries = shape.B * shape.bag
    if pass_ == "forward":
        return Roofline(inputs + 12 * entries, 4 * shape.B * shape.H * shape.N * shape.C)
    return Roofline(12 * entries + 2 * inputs, 8 * entries * shape.C)


def _bag(case: Case, pass_: str, gradient_rows: int) -> Roofline:
    shape, size = case.shape, DTYPES[case.dtype].itemsize
    weight = 4 if case.op == "layer" else size
    entries = shape.B * shape.bag
    row = shape.D * size
    rows = entries * row + entries * (8 + weight)
    if pass_ == "forward":
        return Roofline(rows + shape.B * row, 2 * entries * shape.D)
    return Roofline(rows + entries * weight + gradient_rows * row, 4 * entries * shape.D)
