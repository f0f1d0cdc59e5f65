"""Kernels whose registers, loads and loops are known, to see that the offline audit counts them right.

Run as a program it compiles them for every target and prints the rows as JSON. It is no test module, because Triton
makes compilable kernels only where ``TRITON_INTERPRET`` was unset at their definition.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import torch
import triton
import triton.language as tl

from benchmarks.audit.count import count_binary
from benchmarks.audit.machine.weights import Declarations
from benchmarks.audit.offline import TARGETS, compile_launch
from lmn_kernels.launch import Launch

# Two tiles of this many elements, held by one warp, are more than its registers: 2 x 128 of 255, 2 x 256 of 512.
TOO_MANY = {"cuda": 128 * 32, "hip": 256 * 64}
DECLARATIONS = Declarations(
    trips={
        "_chain_kernel": {"while position != 0:": 3},
        "_runs_kernel": {"for k in range(start, end):": "BLOCK // 16"},
    },
    taken={"_rare_kernel": {"if tl.load(flag_ptr) > 0:": 0}},
)


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
def _nested_kernel(x_ptr, out_ptr, OUTER: tl.constexpr, INNER: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    sums = tl.zeros([BLOCK], tl.float32)
    for a in range(0, OUTER):
        for b in range(0, INNER):
            sums += tl.load(x_ptr + (a * INNER + b) * BLOCK + i)
        sums = sums * sums
    tl.store(out_ptr + i, sums)


@triton.jit
def _unrolled_kernel(x_ptr, out_ptr, N: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    sums = tl.zeros([BLOCK], tl.float32)
    for k in tl.range(0, N, loop_unroll_factor=4):
        sums = sums * sums + tl.load(x_ptr + k * BLOCK + i)
    tl.store(out_ptr + i, sums)


@triton.jit(do_not_specialize=["n"])
def _argument_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    sums = tl.zeros([BLOCK], tl.float32)
    for k in range(2, n):
        sums = sums * sums + tl.load(x_ptr + k * BLOCK + i)
    tl.store(out_ptr + i, sums)


@triton.jit
def _runs_kernel(x_ptr, starts_ptr, out_ptr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    sums = tl.zeros([BLOCK], tl.float32)
    start = tl.load(starts_ptr)
    end = tl.load(starts_ptr + 1)
    for k in range(start, end):
        sums = sums * sums + tl.load(x_ptr + k * BLOCK + i)
    tl.store(out_ptr + i, sums)


@triton.jit
def _chain_kernel(x_ptr, next_ptr, out_ptr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    sums = tl.zeros([BLOCK], tl.float32)
    position = tl.load(next_ptr)
    while position != 0:
        sums = sums * sums + tl.load(x_ptr + position * BLOCK + i)
        position = tl.load(next_ptr + position)
    tl.store(out_ptr + i, sums)


@triton.jit
def _rare_kernel(x_ptr, flag_ptr, out_ptr, N: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    sums = tl.load(x_ptr + i)
    if tl.load(flag_ptr) > 0:
        for k in range(1, N):
            sums = sums * sums + tl.load(x_ptr + k * BLOCK + i)
    tl.store(out_ptr + i, sums)


def known_launches(target: str) -> dict[str, Launch]:
    x = torch.empty(1 << 20, device="meta")
    index = torch.empty(1 << 10, dtype=torch.int32, device="meta")
    backend = TARGETS[target].gpu.backend
    one = {"BLOCK": 4 * TARGETS[target].gpu.warp_size, "num_warps": 4}  # one element a thread: 128 or 256
    return {
        "aligned": Launch(_add_kernel, (1,), (x, x, x, 1 << 20), {"BLOCK": 1024}),
        "misaligned": Launch(_add_kernel, (1,), (x[1:], x[1:], x[1:], (1 << 20) - 1), {"BLOCK": 1024}),
        "spilling": Launch(_hoard_kernel, (1,), (x, x, 7), {"BLOCK": TOO_MANY[backend], "num_warps": 1}),
        "nested": Launch(_nested_kernel, (1,), (x, x), {"OUTER": 60, "INNER": 50, **one}),
        "unrolled": Launch(_unrolled_kernel, (1,), (x, x), {"N": 512, **one}),
        "argument": Launch(_argument_kernel, (1,), (x, x, 42), one),
        "runs": Launch(_runs_kernel, (1,), (x, index, x), one),
        "chain": Launch(_chain_kernel, (1,), (x, index, x), one),
        "rare": Launch(_rare_kernel, (1,), (x, index, x), {"N": 500, **one}),
    }


def row_of(case: str, launch: Launch, target: str, declarations: Declarations) -> dict[str, Any]:
    compiled = compile_launch(launch, target)
    usage = {"spilled_registers": compiled.spilled_registers, "stack_bytes": compiled.stack_bytes}
    return {**asdict(count_binary(compiled, launch, case, declarations, lines=True)), **usage}


def main() -> None:
    rows = []
    undeclared = {}
    for target in TARGETS:
        launches = known_launches(target)
        rows += [row_of(case, launch, target, DECLARATIONS) for case, launch in launches.items()]
        often = Declarations(taken={"_rare_kernel": {"if tl.load(flag_ptr) > 0:": 0.5}})
        rows.append(row_of("half", launches["rare"], target, often))
        undeclared[target] = row_of("chain", launches["chain"], target, Declarations())
    print(json.dumps({"rows": rows, "undeclared": undeclared}))


if __name__ == "__main__":
    sys.exit(main())
