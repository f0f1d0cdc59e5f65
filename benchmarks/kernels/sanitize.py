"""Run every op, forward and backward, at a few small shapes, for ``compute-sanitizer`` on a GPU.

``make sanitize-gpu`` runs this module under memcheck and racecheck, with torch's caching allocator off, since a cache
hides reads past the end. Each result is compared to float64 as well.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from benchmarks.kernels.correctness import check
from benchmarks.kernels.problems import DTYPES, OPS, SLOTS, Case, make_problems
from benchmarks.kernels.providers import all_providers
from benchmarks.kernels.shapes import Shape

SHAPES = (
    Shape("odd", B=37, H=2, C=20, N=48, K=9, D=36),
    Shape("usual", B=70, H=1, C=64, N=1024, K=32, D=128),
    Shape("large", B=9000, H=1, C=16, N=80, K=8, D=8),
    Shape("many", B=5, H=1, C=16, N=256, K=200, D=7),
)


def run(device: torch.device | str, shapes: Sequence[Shape] = SHAPES) -> int:
    """Check all ops of this library on ``device``; the number of checks.

    Raises:
        WrongResult: a result is wrong.
    """
    done = 0
    for shape in shapes:
        for op in OPS:
            for dtype in (name for name in DTYPES if name != "fp64"):
                for slots in SLOTS:
                    problem = make_problems(Case(op, shape, dtype, slots), 1, device)[0]
                    for name, provider in all_providers().items():
                        if name.startswith("lmn") and op in provider.ops:
                            check(provider, provider.ops[op](problem), problem)
                            done += 1
    return done


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("benchmarks.kernels.sanitize: there is no GPU that torch can use")
    print(f"{run('cuda')} checks")
