"""What the audit counts: figures of one binary, and of one part of a case, which may take several launches.

Weighted instructions are those one thread issues, each as often as it runs (``machine/weights.py``). A part's
instructions are weighted instructions x threads of a block x blocks, summed over its launches, and then divided:

- router: by its scores, B x H x 2 x N, one for each row, head, axis and sub-key; selection, pairs and activation are
  in it.
- bag: by the 16-byte pieces of the value rows it gathers, B x L x D x itemsize / 16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.audit.machine import amd, sass
from benchmarks.audit.machine.breakdown import format_breakdown
from benchmarks.audit.machine.loops import Program
from benchmarks.audit.machine.weights import CountedLoop, Declarations, Weights, weigh
from benchmarks.audit.occupancy import occupancy
from benchmarks.audit.offline import CompiledKernel
from benchmarks.audit.opcodes import TMA, global_loads, tensor_opcodes
from benchmarks.kernels.shapes import Shape
from lmn_kernels.launch import Launch

VECTOR_BYTES = 16


@dataclass(frozen=True)
class Binary:
    """Figures of one compiled kernel.

    Attributes:
        cases: every case that launches it, ``SHAPE:DTYPE:METRIC:ACTIVATION``.
        config: constexprs and options of its first launch.
        key: content hash; equal keys are the same binary.
        threads: of a block.
        registers: 32-bit vector registers of a thread.
        spill_bytes: widths of all spill instructions and the stack.
        parked_registers: on AMD, registers that the compiler moves elsewhere (``usage.py``).
        shared_bytes: dynamic, of a block.
        resident_warps, most_warps, limited_by: see ``occupancy.py``.
        instructions: machine instructions that can be reached; padding is none.
        weighted_instructions: what one thread issues; None, and a problem, where a loop's trips cannot be known.
        loads: weighted loads from global memory by bytes a thread.
        widest_load_bytes: the widest of them; a bulk copy counts as 16; 0 without loads.
        tensor_opcodes: matrix instructions present.
        loops: machine loops, their trips and where those come from.
        problems: why the binary is not acceptable on its target.
        lines: the breakdown by source line, where it was asked for.
    """

    kernel: str
    target: str
    cases: list[str]
    config: str
    key: str
    threads: int
    registers: int
    spill_bytes: int
    parked_registers: int
    shared_bytes: int
    resident_warps: int
    most_warps: int
    limited_by: str
    instructions: int
    weighted_instructions: float | None
    loads: dict[str, float]
    widest_load_bytes: int
    tensor_opcodes: list[str]
    loops: tuple[CountedLoop, ...]
    problems: list[str]
    lines: str = field(default="", repr=False)


@dataclass(frozen=True)
class Part:
    """Figures of one part of a case: its launches and the instructions that all their threads issue."""

    case: str
    target: str
    part: str
    launches: int
    thread_instructions: float | None
    instructions_per_score: float | None
    instructions_per_16_bytes: float | None


def count_binary(
    compiled: CompiledKernel, launch: Launch, case: str, declarations: Declarations, lines: bool
) -> Binary:
    """Count one binary, first seen in ``launch``."""
    instructions = compiled.instructions
    program = Program(instructions, amd if compiled.target.startswith("gfx") else sass)
    problems = compiled.problems()
    try:
        weights = weigh(program, compiled.kernel, compiled.target, _constants(launch), declarations)
    except ValueError as error:
        problems.append(str(error))
        weights = Weights((0.0,) * len(instructions), ())
    loads = global_loads(instructions, weights.of)
    bound = occupancy(compiled.target, compiled.num_warps, compiled.registers, compiled.dynamic_shared_bytes)
    return Binary(
        kernel=compiled.kernel,
        target=compiled.target,
        cases=[case],
        config=compiled.config,
        key=compiled.key,
        threads=compiled.threads,
        registers=compiled.registers,
        spill_bytes=compiled.spill_bytes + compiled.stack_bytes,
        parked_registers=compiled.parked_registers,
        shared_bytes=compiled.dynamic_shared_bytes,
        resident_warps=bound.warps,
        most_warps=bound.most,
        limited_by=bound.limit,
        instructions=sum(block.end - block.first for n, block in enumerate(program.blocks) if n in program.reachable),
        weighted_instructions=sum(weights.of) or None,
        loads=loads,
        widest_load_bytes=max((VECTOR_BYTES if width == TMA else int(width) for width in loads), default=0),
        tensor_opcodes=tensor_opcodes(instructions),
        loops=weights.loops,
        problems=problems,
        lines=format_breakdown(instructions, weights) if lines else "",
    )


def count_part(
    case: str, target: str, part: str, shape: Shape, itemsize: int, launches: Sequence[tuple[Launch, Binary]]
) -> Part:
    """Add up the launches of a part."""
    issued = [
        None
        if binary.weighted_instructions is None
        else math.prod(launch.grid) * binary.threads * binary.weighted_instructions
        for launch, binary in launches
    ]
    total = None if None in issued else sum(count for count in issued if count is not None)
    scores = shape.B * shape.H * 2 * shape.N
    pieces = shape.B * shape.H * shape.K * shape.D * itemsize / VECTOR_BYTES
    return Part(
        case=case,
        target=target,
        part=part,
        launches=len(launches),
        thread_instructions=total,
        instructions_per_score=total / scores if total is not None and part == "router" else None,
        instructions_per_16_bytes=total / pieces if total is not None and part == "bag" else None,
    )


def format_tables(binaries: Sequence[Binary], parts: Sequence[Part]) -> str:
    """Two text tables: binaries, one line each, and the parts with a figure of their own."""
    lines = [
        f"{'kernel':42} {'first case':30} {'target':6} {'warps':>5} {'regs':>4} {'spill':>5} {'parked':>6} "
        f"{'shared':>6} {'occupancy':>18} {'instr':>6} {'weighted':>9} {'loads by bytes':28} tensor"
    ]
    for row in binaries:
        bound = f"{row.resident_warps}/{row.most_warps} {row.limited_by}"
        loads = " ".join(f"{width}:{count:g}" for width, count in row.loads.items())
        warps = row.threads // (64 if row.target.startswith("gfx") else 32)
        lines.append(
            f"{row.kernel:42} {row.cases[0]:30} {row.target:6} {warps:5} {row.registers:4} {row.spill_bytes:5} "
            f"{row.parked_registers:6} {row.shared_bytes:6} {bound:>18} {row.instructions:6} "
            f"{row.weighted_instructions or 0:9.0f} {loads:28} {' '.join(row.tensor_opcodes)}".rstrip()
        )
    lines += ["", f"{'case':30} {'target':6} {'part':14} {'launches':>8} {'a score':>8} {'16 bytes':>9}"]
    for part in parts:
        if part.instructions_per_score is not None or part.instructions_per_16_bytes is not None:
            lines.append(
                f"{part.case:30} {part.target:6} {part.part:14} {part.launches:8} "
                f"{_number(part.instructions_per_score):>8} {_number(part.instructions_per_16_bytes):>9}".rstrip()
            )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _constants(launch: Launch) -> Mapping[str, Any]:
    names = launch.kernel.arg_names
    return {**dict(zip(names, launch.args, strict=False)), **launch.meta}
