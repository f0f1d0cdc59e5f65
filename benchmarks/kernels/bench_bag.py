"""The weighted bag: values, slots and weights to rows."""

from __future__ import annotations

from typing import Any

from benchmarks.kernels.problems import Case
from benchmarks.kernels.suite import Bench, parametrize


@parametrize("bag")
def test_bag(benchmark: Any, bench: Bench, case: Case, pass_: str, side: str) -> None:
    """Checked against float64, then timed."""
    bench.run(benchmark, case, pass_, side)
