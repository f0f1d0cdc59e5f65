"""The problem sizes that benchmarks and the offline audit share, so that their figures speak of the same thing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """One problem size: rows, heads, width of a query half, sub-keys on an axis, slots chosen, width of a value row."""

    name: str
    B: int
    H: int
    C: int
    N: int
    K: int
    D: int

    @property
    def slots(self) -> int:
        """M = N * N, the rows of the value table."""
        return self.N * self.N


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("ctr_64k", B=4096, H=1, C=32, N=256, K=16, D=64),
        Shape("lmn_1m", B=65536, H=1, C=64, N=1024, K=32, D=128),
        Shape("lmn_16m", B=65536, H=1, C=64, N=4096, K=32, D=64),
        Shape("heads_1m", B=16384, H=4, C=64, N=1024, K=32, D=256),
        Shape("wide_1m", B=8192, H=4, C=128, N=1024, K=32, D=1024),
        Shape("serve_1", B=1, H=1, C=64, N=1024, K=32, D=128),
        Shape("serve_256", B=256, H=1, C=64, N=1024, K=32, D=128),
        Shape("odd", B=999, H=3, C=65, N=1000, K=50, D=100),
        Shape("many_slots", B=4096, H=1, C=64, N=1024, K=200, D=64),
    )
}
