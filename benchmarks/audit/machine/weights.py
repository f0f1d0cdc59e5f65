"""How often each machine instruction runs: the product of the trips of the loops around it.

A loop's trips come, in this order, from the machine code (``loops.py``), from a declaration for loops that depend on
data, or from the ``range`` of the source where the launch determines it. What is derived is checked against the source:
it may run less often (the compiler unrolls), never more often.

A declaration names the kernel and the text of the loop's first line and counts trips of the source. Where the compiler
has unrolled such a loop, each machine loop of it runs as often as its copies of the body ask for, larger loops first:
copies are counted by PTX lines that several memory, shuffle, barrier or matrix instructions of the loop share, and,
where one source loop became several machine loops, by the number of such instructions.

Branches count as taken both ways, as written, but for an ``if`` of which it is declared how
often it is taken: a block of which most instructions come from its body weighs that share, 0 for a slow path.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.audit.machine.instructions import Frame
from benchmarks.audit.machine.loops import Loop, Program
from benchmarks.audit.machine.sources import Statement, evaluate, statements

_COUNTABLE = re.compile(
    r"^(LDG|LDS|LDL|STG|STS|STL|ATOM|RED|SHFL|BAR|VOTE|REDUX|MATCH|[A-Z]*MMA|UTC|"
    r"(global|buffer|flat|scratch|ds)_|v_mfma|s_barrier)"
)


@dataclass(frozen=True)
class Declarations:
    """Trips of loops that depend on data, and shares of the times that an ``if`` is taken, by kernel and source text.

    Trips are a number, or an expression over the arguments of the launch: ``"CHUNK // UNROLL"``.
    """

    trips: Mapping[str, Mapping[str, int | str]] = field(default_factory=dict)
    taken: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class CountedLoop:
    """A machine loop: its source line, nesting depth, trips each time it is entered, where they come from, and the
    instructions of one trip (loops inside it counted with their trips) and of all."""

    source: str
    depth: int
    trips: float
    origin: str
    body: float
    total: float


@dataclass(frozen=True)
class Weights:
    """``of[i]`` is how often one thread issues instruction i; padding and traps behind the end never."""

    of: tuple[float, ...]
    loops: tuple[CountedLoop, ...]


def weigh(
    program: Program, kernel: str, target: str, constants: Mapping[str, object], declarations: Declarations
) -> Weights:
    """Weight of every instruction of ``program``.

    Args:
        kernel: name of the kernel, for declarations and errors.
        target: name of the GPU, for errors.
        constants: arguments of the launch by name.

    Raises:
        ValueError: the trips of a loop can be neither derived nor found declared, or contradict the source.
    """
    shares = _shares(program, declarations.taken.get(kernel, {}))
    named = _named(program)
    origins = {id(loop): "machine code" for loop in program.loops if loop.trips is not None}
    declared = declarations.trips.get(kernel, {})
    for group in _groups(program.loops, named):
        statement = named[id(group[0])]
        trips = _declared(declared, statement, constants) if statement else None
        of_source = statement.trips(constants) if statement else None
        for loop in group:
            if shares.get(loop.header) == 0 or trips == 0:
                loop.trips, origins[id(loop)] = 0, "declared"
            elif loop.trips is not None and of_source is not None and loop.trips > of_source + 1:
                raise ValueError(
                    f"{kernel} on {target}: {_name(statement)} runs {loop.trips} times in the machine code and "
                    f"{of_source} times in the source"
                )
        unknown = [loop for loop in group if loop.trips is None]
        if unknown:
            if trips is None and of_source is None:
                raise ValueError(
                    f"{kernel} on {target}: the trips of {_name(statement)} depend on data; declare them in "
                    "benchmarks/audit/budgets.toml"
                )
            origin = "source" if trips is None else "declared"
            _share(program, unknown, of_source if trips is None else trips)
            origins.update({id(loop): origin for loop in unknown})
    of = _spread(program, shares)
    rows = tuple(_row(program, loop, named[id(loop)], origins[id(loop)], of) for loop in program.loops)
    return Weights(of, rows)


def _shares(program: Program, declared: Mapping[str, float]) -> dict[int, float]:
    """Share of the times that a block runs, for blocks inside the branches of ``declared``."""
    found: dict[int, float] = {}
    for text, share in declared.items():
        for number, block in enumerate(program.blocks):
            inside = sum(
                any(_within(frame, text) for frame in instruction.frames)
                for instruction in program.instructions[block.first : block.end]
            )
            if 2 * inside > block.end - block.first:
                found[number] = found.get(number, 1.0) * share
    return found


def _within(frame: Frame, text: str) -> bool:
    return any(
        statement.kind == "if" and statement.text == text and statement.holds(frame)
        for statement in statements(frame.file)
    )


def _named(program: Program) -> dict[int, Statement | None]:
    """The source loop of each machine loop, by its id.

    A loop around another of the same source loop is the next one around that in the source: its branch back can carry
    the inner loop's line.
    """
    named: dict[int, Statement | None] = {}
    for loop in sorted(program.loops, key=lambda loop: -loop.depth):
        statement = _statement(program, loop)
        inside = [named[id(other)] for other in program.loops if other.parent is loop]
        while statement is not None and statement in inside:
            statement = statement.around()
        named[id(loop)] = statement
    return named


def _statement(program: Program, loop: Loop) -> Statement | None:
    """The source loop of a machine loop: the one on whose own line its branch back lies, or most other instructions
    that lie on such a line; else the innermost one around most of its instructions."""
    own = [block for block in sorted(loop.blocks) if program.innermost(block) is loop]
    ends = [program.instructions[program.blocks[latch].end - 1] for latch in loop.latches]
    body = [
        program.instructions[i] for block in own for i in range(program.blocks[block].first, program.blocks[block].end)
    ]
    for group in (ends, body):
        heads = Counter(
            statement
            for instruction in group
            for frame in instruction.frames
            for statement in statements(frame.file)
            if statement.kind != "if" and statement.heads(frame)
        )
        if heads:
            return max(heads, key=lambda statement: (heads[statement], statement.first))
    around = Counter(
        statement
        for instruction in body
        for frame in instruction.frames
        for statement in statements(frame.file)
        if statement.kind != "if" and statement.holds(frame)
    )
    common = [statement for statement, count in around.items() if 2 * count > len(body)]
    return max(common, key=lambda statement: statement.first, default=None)


def _declared(declared: Mapping[str, int | str], statement: Statement, constants: Mapping[str, object]) -> int | None:
    trips = declared.get(statement.text)
    if isinstance(trips, str):
        try:
            return evaluate(trips, constants)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"the declared trips {trips!r} of {_name(statement)} are no expression: {error}"
            ) from error
    return trips


def _groups(loops: Sequence[Loop], named: Mapping[int, Statement | None]) -> list[list[Loop]]:
    """Loops that one source loop became, outermost first."""
    groups: dict[tuple[object, object], list[Loop]] = {}
    for loop in sorted(loops, key=lambda loop: loop.depth):
        statement = named[id(loop)]
        key = (id(loop.parent), statement or id(loop))
        groups.setdefault(key, []).append(loop)
    return list(groups.values())


def _name(statement: Statement | None) -> str:
    return f"`{statement.text}` ({statement.file}:{statement.first})" if statement else "a loop without a source line"


def _share(program: Program, loops: list[Loop], trips: int) -> None:
    """Give ``trips`` of the source to the machine loops that it became."""
    counts = {id(loop): _countable(program, loop) for loop in loops}
    least = max(1, min(count.total() for count in counts.values()))
    copies = {}
    for key, count in counts.items():
        of_lines = [number for line, number in count.items() if line]
        copies[key] = max(1, min(of_lines, default=1), round(count.total() / least))
    loops = sorted(loops, key=lambda loop: -copies[id(loop)])
    for loop in loops[:-1]:
        loop.trips, trips = divmod(trips, copies[id(loop)])
    loops[-1].trips = trips / copies[id(loops[-1])]


def _countable(program: Program, loop: Loop) -> Counter[int]:
    return Counter(
        instruction.origin
        for block in loop.blocks
        for instruction in program.instructions[program.blocks[block].first : program.blocks[block].end]
        if _COUNTABLE.match(instruction.opcode)
    )


def _spread(program: Program, shares: Mapping[int, float]) -> tuple[float, ...]:
    weights = [0.0] * len(program.blocks)

    def enter(entry: int, times: float) -> None:
        for number in program.reach(entry):
            weight = times * shares.get(number, 1.0)
            loop = program.innermost(number)
            while loop:
                weight *= loop.trips or 0
                loop = loop.parent
            weights[number] += weight
            callee = program.blocks[number].callee
            if callee is not None and weight:
                enter(callee, weight)

    enter(0, 1.0)
    return tuple(weights[program.block_of(index)] for index in range(len(program.instructions)))


def _row(program: Program, loop: Loop, statement: Statement | None, origin: str, of: tuple[float, ...]) -> CountedLoop:
    indices = [i for block in loop.blocks for i in range(program.blocks[block].first, program.blocks[block].end)]
    total = sum(of[i] for i in indices)
    entered = total
    around: Loop | None = loop
    while around:
        entered = entered / around.trips if around.trips else 0.0
        around = around.parent
    return CountedLoop(statement.text if statement else "?", loop.depth, loop.trips or 0, origin, entered, total)
