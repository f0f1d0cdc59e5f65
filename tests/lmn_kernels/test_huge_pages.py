"""Zeros in huge pages: like torch's own, and mapped where they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lmn_kernels import huge_zeros


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32]
)
@pytest.mark.parametrize("shape", [(3, 5), (4,), (0, 7), (2, 0), ()])
def test_they_are_zeros(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    made = huge_zeros(*shape, dtype=dtype)
    assert made.dtype == dtype
    assert made.is_contiguous()
    assert torch.equal(made, torch.zeros(shape, dtype=dtype))


def test_defaults_are_those_of_torch() -> None:
    assert huge_zeros(2).dtype == torch.get_default_dtype()
    with torch.device("meta"):
        assert huge_zeros(2).device.type == "meta"
    assert huge_zeros(2, device="meta").device.type == "meta"


def test_they_take_memory_where_they_are_written() -> None:
    made = huge_zeros(1 << 30)
    before = _resident("Rss")
    made[:: 1 << 20].fill_(1.0)  # 1,024 places, each in a page of 2 MiB or of 4 KiB
    assert 4 << 20 <= _resident("Rss") - before <= 3 << 30


@pytest.mark.skipif(
    not re.search(r"\[(madvise|always)\]", Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text())
    if Path("/sys/kernel/mm/transparent_hugepage/enabled").exists()
    else True,
    reason="this system has no huge pages",
)
def test_the_pages_are_huge() -> None:
    made = huge_zeros(1 << 26)
    before = _resident("AnonHugePages")
    made.fill_(1.0)
    assert _resident("AnonHugePages") - before > made.nbytes // 2


def _resident(name: str) -> int:
    (line,) = (line for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
