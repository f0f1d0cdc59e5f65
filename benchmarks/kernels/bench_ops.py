"""Every op under pytest-benchmark: the router, the weighted bag, and the layer, which is the whole read."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.kernels.problems import OPS, Case
from benchmarks.kernels.suite import Bench, cases

CASES = [
    pytest.param(
        case,
        pass_,
        provider,
        id=f"{case.op}-{case.shape.name}-{case.dtype}-{case.slots}-{pass_}-{provider}",
        marks=() if default else (pytest.mark.more,),
    )
    for op in OPS
    for case, pass_, provider, default in cases(op)
]


@pytest.mark.parametrize(("case", "pass_", "provider"), CASES)
def test_op(benchmark: Any, bench: Bench, case: Case, pass_: str, provider: str) -> None:
    """Checked against float64, then timed."""
    bench.run(benchmark, case, pass_, provider)
