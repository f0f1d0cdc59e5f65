"""The machine's measured ceilings: bytes per second of a copy and operations per second of a matrix product."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.kernels.problems import DTYPES
from benchmarks.kernels.timing import Effort, Stopwatch, percentiles, time_in_turns

COPY_BYTES = {"cuda": 4 << 30, "cpu": 256 << 20}
MATRIX_WIDTH = {"cuda": 8192, "cpu": 1024}


@dataclass(frozen=True)
class Ceilings:
    """Bytes per second of a copy, read and written ones counted, and operations per second of a product, by type."""

    bytes_per_s: float
    operations_per_s: dict[str, float]

    def as_record(self) -> dict[str, Any]:
        """For a result file."""
        return asdict(self)


def measure_ceilings(stopwatch: Stopwatch, effort: Effort, scale: int = 1) -> Ceilings:
    """Medians on random data; ``scale`` divides the bytes and the widths of the matrices, for a rehearsal."""
    device = stopwatch.device
    source = torch.empty(COPY_BYTES[device.type] // scale, dtype=torch.uint8, device=device).random_(256)
    target = torch.empty_like(source)
    seconds = time_in_turns({"copy": lambda _: lambda: target.copy_(source)}, stopwatch, effort)["copy"]
    copied = 2 * source.numel() / (percentiles(seconds)["p50_ms"] / 1e3)
    width = MATRIX_WIDTH[device.type] // scale
    rates = {}
    for name in ("fp32", "bf16"):
        a, b = (torch.randn(width, width, device=device).to(DTYPES[name]) for _ in range(2))
        seconds = time_in_turns({name: lambda _, a=a, b=b: lambda: a @ b}, stopwatch, effort)[name]
        rates[name] = 2 * width**3 / (percentiles(seconds)["p50_ms"] / 1e3)
    return Ceilings(copied, rates)
