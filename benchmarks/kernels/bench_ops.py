"""The router (queries and keys to scores and slots), the weighted bag, and the whole read, under pytest-benchmark."""

from __future__ import annotations

from typing import Any

from benchmarks.kernels.problems import Case
from benchmarks.kernels.suite import Bench, parametrize


@parametrize("router")
def test_router(benchmark: Any, bench: Bench, case: Case, pass_: str, provider: str) -> None:
    """Checked against float64, then timed."""
    bench.run(benchmark, case, pass_, provider)


@parametrize("bag")
def test_bag(benchmark: Any, bench: Bench, case: Case, pass_: str, provider: str) -> None:
    """Checked against float64, then timed."""
    bench.run(benchmark, case, pass_, provider)


@parametrize("layer")
def test_layer(benchmark: Any, bench: Bench, case: Case, pass_: str, provider: str) -> None:
    """Checked against float64, then timed."""
    bench.run(benchmark, case, pass_, provider)
