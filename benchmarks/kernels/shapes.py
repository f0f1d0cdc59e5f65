"""The problem sizes that the benchmarks and the offline audit share."""

from __future__ import annotations

from dataclasses import dataclass, replace

CPU_QUERIES = 1024


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

    @property
    def bag(self) -> int:
        """L = H * K, the slots of one row's bag in a memory read."""
        return self.H * self.K


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
NAMED = ("ctr_64k", "lmn_1m", "lmn_16m", "heads_1m", "wide_1m", "serve_1", "serve_256")
CPU_8K = Shape("cpu_8k", B=8192, H=1, C=64, N=1024, K=32, D=128)


def on_cpu(shape: Shape) -> Shape:
    """``shape`` with the batch that CPU runs take: at most 1,024 queries (B * H), all else alike."""
    return replace(shape, B=min(shape.B, max(1, CPU_QUERIES // shape.H)))


def tiny(shape: Shape) -> Shape:
    """``shape`` shrunk to what a test of the machinery needs; its figures mean nothing."""
    return replace(
        shape, B=min(shape.B, 24), H=min(shape.H, 2), C=8, N=max(16, min(32, shape.N // 32)), K=min(shape.K, 8), D=16
    )
