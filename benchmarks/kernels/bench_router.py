"""The router: queries and keys to scores and slots."""

from __future__ import annotations

from typing import Any

from benchmarks.kernels.problems import Case
from benchmarks.kernels.suite import Bench, parametrize


@parametrize("router")
def test_router(benchmark: Any, bench: Bench, case: Case, pass_: str, side: str) -> None:
    """Checked against float64, then timed."""
    bench.run(benchmark, case, pass_, side)
