"""Two kernels whose register use is known, to see that the offline audit can tell them apart.

Run as a program it compiles both for every target and prints the rows as JSON. It is no test module, because Triton
makes compilable kernels only where ``TRITON_INTERPRET`` was unset at their definition.
"""

from __future__ import annotations

import json
import re

import torch
import triton
import triton.language as tl

from benchmarks.offline import TARGETS, as_record, compile_launch
from lmn_kernels.launch import Launch

# Two tiles of this many elements, held by one warp, are more than its registers: 2 x 128 of 255, 2 x 256 of 512.
TOO_MANY = {"cuda": 128 * 32, "hip": 256 * 64}
WIDE_LOAD = re.compile(r"LDG\.E\.128|(?:buffer|global)_load_dwordx4")


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


def main() -> None:
    x = torch.empty(1 << 20, device="meta")
    rows = []
    for name, target in TARGETS.items():
        launches = {
            "aligned": Launch(_add_kernel, (1,), (x, x, x, 1 << 20), {"BLOCK": 1024}),
            "misaligned": Launch(_add_kernel, (1,), (x[1:], x[1:], x[1:], (1 << 20) - 1), {"BLOCK": 1024}),
            "spilling": Launch(_hoard_kernel, (1,), (x, x, 7), {"BLOCK": TOO_MANY[target.gpu.backend], "num_warps": 1}),
        }
        for label, launch in launches.items():
            compiled = compile_launch(launch, name)
            wide = WIDE_LOAD.search(compiled.assembly) is not None
            rows.append({**as_record(label, compiled), "wide_loads": wide})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
