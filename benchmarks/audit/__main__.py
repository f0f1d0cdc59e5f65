"""Compile every kernel for GPUs that this machine does not have, read what each costs, and compare it to its budget.

``python -m benchmarks.audit`` collects the launches of the ops at the named shapes, compiles each for every target and
prints for each binary registers, spills, shared memory, the bound on occupancy, instructions in the code, widths of
global loads and matrix instructions. How each is counted: ``usage.py``, ``occupancy.py``, ``opcodes.py``; budgets:
``budgets.toml``.

The default cases compile every kernel for every target in minutes; ``--every`` takes all named shapes in two types. The
exit status is 1 where a kernel spills or does not fit or a budget is broken; the output names the budget, the figure
and the place. ``--out`` saves all figures as JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.audit.budgets import Budget, broken, read_budgets, unused
from benchmarks.audit.cases import AUDIT_CASES, CASE_FORM, EVERY_CASE, parse_case
from benchmarks.audit.count import Part, count_cases, format_table
from benchmarks.audit.launches import kernel_names
from benchmarks.audit.offline import TARGETS, Binary
from benchmarks.result_files import ResultFile


def find_problems(
    budgets: Sequence[Budget], binaries: Sequence[Binary], parts: Sequence[Part], complete: bool
) -> list[str]:
    """Everything that makes the audit fail; of a ``complete`` audit also kernels and budgets that it did not meet."""
    found = [f"{row}: {problem}" for row in binaries for problem in row.problems()]
    found += broken(budgets, binaries, parts)
    if complete:
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
    parser.add_argument(
        "--case", action="append", metavar=CASE_FORM, help=f"may repeat; default: {' '.join(AUDIT_CASES)}"
    )
    parser.add_argument("--every", action="store_true", help="every named shape in bf16 and fp32, and odd ones: long")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="may repeat; default: all")
    parser.add_argument("--kernel", action="append", help="only kernels whose name contains this; may repeat")
    parser.add_argument("--workers", type=int, help="processes; default: one a target, as far as there are cores")
    parser.add_argument("--out", type=Path, metavar="FILE", help="save every figure as JSON")
    options = parser.parse_args(arguments)
    cases = options.case or (EVERY_CASE if options.every else AUDIT_CASES)
    targets = options.target or tuple(TARGETS)
    try:
        for case in cases:
            parse_case(case)
    except ValueError as error:
        parser.error(str(error))
    binaries, parts = count_cases(cases, targets, options.kernel or (), options.workers)
    complete = not (options.case or options.target or options.kernel)
    problems = find_problems(read_budgets(), binaries, parts, complete)
    print(format_table(binaries))
    print("\n".join(["", *problems]) if problems else "\nevery budget is kept")
    if options.out:
        about = {"cases": list(cases), "targets": list(targets), "problems": problems}
        with ResultFile(options.out, "audit", torch.device("cpu"), **about) as file:
            file.data["binaries"] = [asdict(row) for row in binaries]
            file.data["parts"] = [part._asdict() for part in parts]
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
