"""Where a kernel's instructions are: by machine loop and by source line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from benchmarks.audit.machine.instructions import Frame, Instruction
from benchmarks.audit.machine.sources import source_line
from benchmarks.audit.machine.weights import Weights

LIBRARY = "/triton/language/"


def by_line(instructions: Sequence[Instruction], weights: Weights) -> list[tuple[Frame, Counter[str]]]:
    """Weighted instructions by opcode for each source line, most first.

    What is inlined from Triton's library belongs to the line that calls it.
    """
    lines: dict[Frame, Counter[str]] = {}
    for instruction, weight in zip(instructions, weights.of, strict=True):
        frames = [frame for frame in instruction.frames if LIBRARY not in frame.file]
        opcodes = lines.setdefault(frames[-1] if frames else Frame("?", 0), Counter())
        opcodes[instruction.opcode.split(".")[0]] += weight
    return sorted(lines.items(), key=lambda item: -item[1].total())


def format_breakdown(instructions: Sequence[Instruction], weights: Weights, most: int = 25) -> str:
    """Loops with their trips, then the ``most`` source lines that cost most."""
    total = sum(weights.of) or 1
    rows = [f"  {'trips':>7} {'from':13} {'a trip':>9} {'in all':>10} {'share':>6}  loop"]
    for loop in weights.loops:
        rows.append(
            f"  {loop.trips:7g} {loop.origin:13} {loop.body:9.1f} {loop.total:10.0f} {loop.total / total:6.1%}  "
            f"{'  ' * (loop.depth - 1)}{loop.source}"
        )
    rows.append(f"  {'in all':>10} {'share':>6}  source line, most frequent opcodes")
    for frame, opcodes in by_line(instructions, weights)[:most]:
        place = f"{'/'.join(frame.file.split('/')[-2:])}:{frame.line}"
        frequent = " ".join(f"{name}:{count:.0f}" for name, count in opcodes.most_common(4) if count)
        rows.append(f"  {opcodes.total():10.0f} {opcodes.total() / total:6.1%}  {place}  {source_line(frame)}")
        rows.append(f"  {'':17}    {frequent}")
    return "\n".join(rows)
