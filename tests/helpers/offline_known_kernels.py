"""Kernels of known registers and loads, to see that the offline audit counts them right.

``python -m tests.helpers.offline_known_kernels TARGET`` compiles them for a target and prints the figures as JSON. It
is no test module: Triton makes compilable kernels only where ``TRITON_INTERPRET`` was unset at their definition.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import torch
import triton
import triton.language as tl

from benchmarks.audit.offline import TARGETS, compile_launch
from lmn_kernels.launch import Launch

# Two tiles of this many elements, held by one warp, are more than its registers: 2 x 128 of 255, 2 x 256 of 512.
TOO_MANY = {"cuda": 128 * 32, "hip": 256 * 64}


@triton.jit
def _add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    tl.store(out_ptr + i, x + tl.load(y_ptr + i, mask=i < n), mask=i < n)


@triton.jit
def _hoard_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    kept = tl.load(x_ptr + i)
    sums = tl.zeros([BLOCK], tl.float32)
    for _ in range(n):
        sums = sums * kept + tl.sum(sums)
    tl.store(out_ptr + i, sums)


@triton.jit
def _unrolled_kernel(x_ptr, out_ptr, N: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    sums = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(N):
        sums = sums * sums + tl.load(x_ptr + k * BLOCK + i)
    tl.store(out_ptr + i, sums)


@triton.jit(do_not_specialize=["n"])
def _looped_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    sums = tl.zeros([BLOCK], tl.float32)
    for k in range(n):
        sums = sums * sums + tl.load(x_ptr + k * BLOCK + i)
    tl.store(out_ptr + i, sums)


def known_launches(target: str) -> dict[str, Launch]:
    x = torch.empty(1 << 20, device="meta")
    backend = TARGETS[target].gpu.backend
    one = {"BLOCK": 4 * TARGETS[target].gpu.warp_size, "num_warps": 4}  # one element a thread: 128 or 256
    return {
        "aligned": Launch(_add_kernel, (1,), (x, x, x, 1 << 20), {"BLOCK": 1024}),
        "misaligned": Launch(_add_kernel, (1,), (x[1:], x[1:], x[1:], (1 << 20) - 1), {"BLOCK": 1024}),
        "spilling": Launch(_hoard_kernel, (1,), (x, x, 7), {"BLOCK": TOO_MANY[backend], "num_warps": 1}),
        "unrolled": Launch(_unrolled_kernel, (1,), (x, x), {"N": 50, **one}),
        "looped": Launch(_looped_kernel, (1,), (x, x, 50), one),
    }


def figures_of(launch: Launch, target: str) -> dict[str, Any]:
    binary = compile_launch(launch, target)
    return {**asdict(binary), "problems": binary.problems()}


def main() -> None:
    target = sys.argv[1]
    print(json.dumps({case: figures_of(launch, target) for case, launch in known_launches(target).items()}))


if __name__ == "__main__":
    sys.exit(main())
