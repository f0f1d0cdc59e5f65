"""Compile every kernel for GPUs that this machine does not have, count what each costs, and hold it to its budget.

``python -m benchmarks.audit`` collects the launches that the ops make at the named shapes, compiles each for every
target and prints for each binary registers, spills, shared memory, the bound on occupancy, instructions in all and
weighted by how often they run, widths of global loads and matrix instructions, and for each case what the router costs
a score and the bag for 16 gathered bytes. How each is counted: ``figures.py``, ``machine/``; limits: ``budgets.toml``.

The default cases compile every kernel for every target in minutes; ``--every`` takes all named shapes in two types.

It exits with 1 where a kernel spills or does not fit, or a budget is broken, and names the budget, the figure and the
place. ``--out`` saves all figures as JSON. ``--lines`` also prints where the instructions of each binary are, by
machine loop and by source line::

    python -m benchmarks.audit --case lmn_1m:bf16 --target sm_90 --kernel axis --lines
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.audit.budgets import Budgets, broken, read_budgets, unused
from benchmarks.audit.count import Binary, Part, count_binary, count_part, format_tables
from benchmarks.audit.launches import collect_launches, kernel_names
from benchmarks.audit.machine.weights import Declarations
from benchmarks.audit.offline import TARGETS, compile_launch
from benchmarks.kernels.shapes import NAMED, SHAPES, Shape
from benchmarks.result_files import ResultFile
from lmn_kernels.activation import ACTIVATIONS
from lmn_kernels.product_key_topk.metric import METRICS

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp64": torch.float64}
NO_ACTIVATION = "none"
AUDIT_CASES = ("lmn_1m:bf16", "lmn_1m:fp32", "serve_256:bf16", "ctr_64k:fp64", "odd:fp32:l2")
EVERY_CASE = (
    *(f"{shape}:{dtype}" for shape in NAMED for dtype in ("bf16", "fp32")),
    "ctr_64k:fp64",
    "lmn_1m:fp16:cosine:sigmoid",
    "ctr_64k:bf16:l2:relu",
    "ctr_64k:fp64:cosine",
    "ctr_64k:fp64:l2",
    "odd:fp32:l2",
    "many_slots:bf16",
    "lmn_1m:bf16:dot:none",
)


class Case(NamedTuple):
    """A case of the audit: a problem size, a type, a metric and an activation."""

    shape: Shape
    dtype: torch.dtype
    metric: str
    activation: str | None


def parse_case(case: str) -> Case:
    """Read ``SHAPE:DTYPE[:METRIC[:ACTIVATION]]``, with ``dot`` and ``softmax`` where nothing is said.

    The activation ``none`` stands for the router on its own, which returns scores.

    Raises:
        ValueError: a part is unknown or one too many.
    """
    parts = dict(zip_longest(("shape", "dtype", "metric", "activation"), case.split(":")))
    choices = {"shape": SHAPES, "dtype": DTYPES, "metric": METRICS, "activation": (*ACTIVATIONS, NO_ACTIVATION)}
    metric, activation = parts.get("metric") or "dot", parts.get("activation") or "softmax"
    for name, value in {**parts, "metric": metric, "activation": activation}.items():
        if name not in choices or value not in choices[name]:
            raise ValueError(
                f"--case must be SHAPE:DTYPE[:METRIC[:ACTIVATION]], of {', '.join(SHAPES)}; {', '.join(DTYPES)}; "
                f"{', '.join(METRICS)}; {', '.join(choices['activation'])}; got {case}"
            )
    named = None if activation == NO_ACTIVATION else activation
    return Case(SHAPES[parts["shape"]], DTYPES[parts["dtype"]], metric, named)


def count_cases(
    cases: Sequence[str],
    targets: Sequence[str],
    declarations: Declarations,
    kernels: Sequence[str] = (),
    lines: bool = False,
    workers: int | None = None,
) -> tuple[list[Binary], list[Part]]:
    """Compile and count every launch of ``cases`` for ``targets``; a binary that several launches share counts once.

    Each target is compiled in a process and with a cache of its own. Threads that compile for several targets at once
    were seen to translate the same LLVM code to other PTX (128 registers and a spill where a target alone gives 96 and
    none), and Triton's shared cache keeps such a result.

    Args:
        cases: as :func:`parse_case` reads them.
        targets: of :data:`~benchmarks.audit.offline.TARGETS`.
        declarations: trips that the machine code does not tell.
        kernels: count only kernels whose name holds one of these, and no parts; empty: all.
        lines: break each binary down by source line.
        workers: processes; None: one a target, as far as there are cores.
    """
    workers = workers or min(len(targets), len(os.sched_getaffinity(0)))
    count = partial(_count_target, cases, declarations, kernels, lines)
    with get_context("spawn").Pool(workers, maxtasksperchild=1) as pool:
        of_targets = pool.map(count, targets, chunksize=1)
    return [row for rows, _ in of_targets for row in rows], [part for _, parts in of_targets for part in parts]


def _count_target(
    cases: Sequence[str], declarations: Declarations, kernels: Sequence[str], lines: bool, target: str
) -> tuple[list[Binary], list[Part]]:
    start = time.monotonic()
    binaries: dict[str, Binary] = {}
    parts = []
    amd = TARGETS[target].gpu.backend == "hip"
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for number, case in enumerate(cases, 1):
            shape, dtype, metric, activation = parse_case(case)
            for part, launches in collect_launches(shape, dtype, metric, activation, amd=amd).items():
                counted = []
                for launch in launches:
                    if kernels and not any(name in launch.kernel.__name__ for name in kernels):
                        continue
                    compiled = compile_launch(launch, target)
                    if compiled.key not in binaries:
                        binaries[compiled.key] = count_binary(compiled, launch, case, declarations, lines)
                    binary = binaries[compiled.key]
                    if case not in binary.cases:
                        binary.cases.append(case)
                    counted.append((launch, binary))
                if not kernels:
                    parts.append(count_part(case, target, part, shape, dtype.itemsize, counted))
            progress = f"{target}: {case}, {number} of {len(cases)} cases, {len(binaries)} binaries"
            print(f"{progress}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return list(binaries.values()), parts


def find_problems(budgets: Budgets, binaries: Sequence[Binary], parts: Sequence[Part], whole: bool) -> list[str]:
    """Everything that makes the audit fail; of the ``whole`` audit also kernels and budgets that it did not meet."""
    found = [
        f"{row.kernel} {row.cases[0]} {row.target} ({row.config}): {problem}"
        for row in binaries
        for problem in row.problems
    ]
    found += broken(budgets.limits, binaries, parts)
    if whole:
        found += unused(budgets, binaries, parts)
        compiled = {(row.kernel, row.target) for row in binaries}
        found += [
            f"{kernel} {target}: not compiled; its launch is missing in benchmarks/audit/launches.py"
            for kernel in kernel_names()
            for target in TARGETS
            if (kernel, target) not in compiled
        ]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit the kernels of ``lmn_kernels``; see the head of this module. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=__doc__.split("\n\n")[0])
    form = "SHAPE:DTYPE[:METRIC[:ACTIVATION]]"
    parser.add_argument("--case", action="append", metavar=form, help=f"may repeat; default: {' '.join(AUDIT_CASES)}")
    parser.add_argument("--every", action="store_true", help="every named shape in bf16 and fp32, and odd ones: long")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="may repeat; default: all")
    parser.add_argument("--kernel", action="append", help="only kernels whose name holds this; may repeat")
    parser.add_argument("--lines", action="store_true", help="print loops and source lines of each binary")
    parser.add_argument("--workers", type=int, help="processes; default: one a target, as far as there are cores")
    parser.add_argument("--out", type=Path, metavar="FILE", help="save every figure as JSON")
    options = parser.parse_args(arguments)
    cases = options.case or (EVERY_CASE if options.every else AUDIT_CASES)
    targets = options.target or tuple(TARGETS)
    for case in cases:
        try:
            parse_case(case)
        except ValueError as error:
            parser.error(str(error))
    budgets = read_budgets()
    binaries, parts = count_cases(
        cases, targets, budgets.declarations, options.kernel or (), options.lines, options.workers
    )
    problems = find_problems(budgets, binaries, parts, whole=not (options.case or options.target or options.kernel))
    for row in binaries if options.lines else ():
        print(f"{row.kernel} {row.cases[0]} {row.target} ({row.config})\n{row.lines}\n")
    print(format_tables(binaries, parts))
    print("\n".join(["", *problems]) if problems else "\nevery budget is kept")
    if options.out:
        _save(options.out, cases, targets, binaries, parts, problems)
    return int(bool(problems))


def _save(
    path: Path,
    cases: Sequence[str],
    targets: Sequence[str],
    binaries: Sequence[Binary],
    parts: Sequence[Part],
    problems: Sequence[str],
) -> None:
    about = {"cases": list(cases), "targets": list(targets), "problems": list(problems)}
    with ResultFile(path, "audit", torch.device("cpu"), **about) as file:
        file.data["binaries"] = [
            {name: value for name, value in asdict(row).items() if name != "lines"} for row in binaries
        ]
        file.data["parts"] = [asdict(part) for part in parts]


if __name__ == "__main__":
    sys.exit(main())
