"""Collect and compile the launches of the audit's cases, and show the figures of their binaries as a table."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

from benchmarks.audit.cases import parse_case
from benchmarks.audit.launches import collect_launches
from benchmarks.audit.offline import TARGETS, Binary, compile_launch


class Part(NamedTuple):
    """How many launches one part of a case takes: the router, the bag, or what belongs to their backward passes."""

    case: str
    target: str
    part: str
    launches: int


def count_cases(
    cases: Sequence[str], targets: Sequence[str], kernels: Sequence[str] = (), workers: int | None = None
) -> tuple[list[Binary], list[Part]]:
    """Compile every launch of ``cases`` for ``targets``; a binary that several launches share counts once.

    Each target is compiled in a process and with a cache of its own. Threads that compile for several targets at once
    were seen to translate the same LLVM code to other PTX (128 registers and a spill where a target alone gives 96 and
    none), and Triton's shared cache keeps such a result.

    Args:
        cases: see :func:`~benchmarks.audit.cases.parse_case`.
        targets: of :data:`~benchmarks.audit.offline.TARGETS`.
        kernels: compile only kernels whose name contains one of these, and count no parts; empty: all.
        workers: processes; None: one a target, as far as there are cores.
    """
    workers = workers or min(len(targets), len(os.sched_getaffinity(0)))
    with get_context("spawn").Pool(workers, maxtasksperchild=1) as pool:
        by_target = pool.map(partial(_count_target, cases, kernels), targets, chunksize=1)
    return [row for rows, _ in by_target for row in rows], [part for _, parts in by_target for part in parts]


def _count_target(cases: Sequence[str], kernels: Sequence[str], target: str) -> tuple[list[Binary], list[Part]]:
    start = time.monotonic()
    binaries: dict[str, Binary] = {}
    parts = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for number, case in enumerate(cases, 1):
            for part, launches in collect_launches(*parse_case(case), amd=TARGETS[target].gpu.backend == "hip").items():
                for launch in launches:
                    if not kernels or any(name in launch.kernel.__name__ for name in kernels):
                        compiled = compile_launch(launch, target)
                        binary = binaries.setdefault(compiled.key, compiled)
                        if case not in binary.cases:
                            binary.cases.append(case)
                if not kernels:
                    parts.append(Part(case, target, part, len(launches)))
            progress = f"{target}: {case}, {number} of {len(cases)} cases, {len(binaries)} binaries"
            print(f"{progress}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return list(binaries.values()), parts


def format_table(binaries: Sequence[Binary]) -> str:
    """A text table, one line a binary."""
    lines = [
        f"{'kernel':42} {'first case':15} {'target':6} {'warps':>5} {'regs':>4} {'spill':>5} {'parked':>6} "
        f"{'shared':>6} {'occupancy':>17} {'instr':>6}  {'loads by bytes':20} tensor"
    ]
    for row in binaries:
        warps = row.threads // TARGETS[row.target].gpu.warp_size
        bound = f"{row.resident_warps}/{row.max_warps} {row.limited_by}"
        loads = " ".join(f"{width}:{count}" for width, count in row.loads.items())
        lines.append(
            f"{row.kernel:42} {row.cases[0]:15} {row.target:6} {warps:5} {row.registers:4} "
            f"{row.spill_bytes + row.stack_bytes:5} {row.parked_registers:6} {row.shared_bytes:6} {bound:>17} "
            f"{row.instructions:6}  {loads:20} {' '.join(row.tensor_opcodes)}".rstrip()
        )
    return "\n".join(lines)
