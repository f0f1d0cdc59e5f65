"""The whole read: queries to rows, as a model calls it."""

from __future__ import annotations

from typing import Any

from benchmarks.kernels.problems import Case
from benchmarks.kernels.suite import Bench, parametrize


@parametrize("layer")
def test_layer(benchmark: Any, bench: Bench, case: Case, pass_: str, side: str) -> None:
    """Checked against float64, then timed."""
    bench.run(benchmark, case, pass_, side)
