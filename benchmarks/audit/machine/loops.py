"""Basic blocks, loops and trip counts of one machine program.

Blocks end at branches; a loop is a natural loop: an edge back to a block that dominates its source, with all blocks
that reach the source without passing that header. Loops with one header are one loop; they nest by containment.

A trip count is derived by running the integer instructions of the loop with the registers whose values are known, until
it leaves (``sass.py``, ``amd.py``). A loop that sits inside another is derived with everything the outer one changes
unknown, so a derived count holds in each trip of the outer loop. Where paths meet behind a branch that is not known,
what either path writes is unknown. A loop that only waits for the hardware, a barrier's phase for instance, counts
once. None means that the count depends on data.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.audit.machine.instructions import Instruction

MOST_STEPS = 2_000_000
State = dict[str, int]


class Semantics(Protocol):
    """What the module of an instruction set must know."""

    def writes(self, instruction: Instruction, /) -> list[str]:
        """Registers the instruction may write."""

    def step(self, instruction: Instruction, writes: list[str], state: State, /) -> None:
        """Update the known registers by one instruction, which writes ``writes``."""

    def taken(self, branch: Instruction, state: State, /) -> int | None:
        """Whether a branch is taken: 1, 0, or None where that is unknown."""

    def waits(self, instruction: Instruction, /) -> bool:
        """Whether a loop of one block with this instruction only waits for the hardware."""

    def flow(self, instruction: Instruction, /) -> str:
        """``next``, ``branch`` (either way), ``jump``, ``call`` or ``end``."""


@dataclass
class Block:
    """Instructions ``[first, end)`` and the blocks that may follow, the branch's target last."""

    first: int
    end: int
    after: list[int] = field(default_factory=list)
    callee: int | None = None


@dataclass
class Loop:
    """A natural loop: header, blocks, the loop around it, and how often it runs for each time it is entered.

    ``trips`` is None until derived or declared. ``latches`` are the blocks with an edge back to the header.
    """

    header: int
    latches: list[int]
    blocks: set[int]
    parent: Loop | None = None
    trips: float | None = None

    @property
    def depth(self) -> int:
        """1 for an outermost loop."""
        return 1 + (self.parent.depth if self.parent else 0)


class Program:
    """Control flow of one kernel.

    Raises:
        ValueError: an edge goes back to a block that does not dominate it; such a cycle has no trip count.
    """

    def __init__(self, instructions: list[Instruction], semantics: Semantics) -> None:
        self.instructions = instructions
        self.semantics = semantics
        self.blocks = _split(instructions, semantics)
        self._firsts = [block.first for block in self.blocks]
        after = [block.after for block in self.blocks]
        self.reachable: set[int] = set()
        self._after = after
        self.loops: list[Loop] = []
        entries = [0]
        for entry in entries:
            reached = self.reach(entry)
            called = {self.blocks[number].callee for number in reached} - {None, *entries}
            entries += sorted(callee for callee in called if callee is not None)
            self.reachable |= reached
            self._find_loops(after, entry)
        for loop in self.loops:
            around = [other for other in self.loops if other is not loop and loop.blocks < other.blocks]
            loop.parent = min(around, key=lambda other: len(other.blocks), default=None)
            if len(loop.blocks) == 1 and any(map(semantics.waits, self._instructions_of(loop.header))):
                loop.trips = 1
        self.loops.sort(key=lambda loop: (self.blocks[loop.header].first, loop.depth))
        self._join = _immediate_postdominators(after)
        self._writes = [semantics.writes(instruction) for instruction in instructions]
        self._written = [
            {name for i in range(block.first, block.end) for name in self._writes[i]} for block in self.blocks
        ]
        for entry in entries:
            self._explore(None, entry, {})

    def reach(self, entry: int) -> set[int]:
        """Blocks that may run after ``entry``, calls left out."""
        return _reach(self._after, entry)

    def block_of(self, index: int) -> int:
        """The block that holds an instruction."""
        return bisect_right(self._firsts, index) - 1

    def innermost(self, block: int) -> Loop | None:
        """The innermost loop around a block."""
        return max((loop for loop in self.loops if block in loop.blocks), key=lambda loop: loop.depth, default=None)

    def _instructions_of(self, number: int) -> list[Instruction]:
        return self.instructions[self.blocks[number].first : self.blocks[number].end]

    def _find_loops(self, after: list[list[int]], entry: int) -> None:
        dominators = _dominators(after, entry)
        by_header: dict[int, Loop] = {}
        for source, target in _retreating_edges(after, entry):
            if target not in dominators[source]:
                first, end = self.blocks[target].first, self.blocks[source].end
                raise ValueError(f"loops: a jump from instruction {end - 1} into the middle of a cycle at {first}")
            loop = by_header.setdefault(target, Loop(target, [], {target}))
            loop.latches.append(source)
            waiting = [source]
            while waiting:
                block = waiting.pop()
                if block not in loop.blocks:
                    loop.blocks.add(block)
                    waiting += [number for number in dominators if block in after[number]]
        self.loops += by_header.values()

    def _explore(self, loop: Loop | None, entry: int, state: State) -> None:
        """Derive the trips of the loops directly inside ``loop``, visiting each block once from ``entry``."""
        inner = {other.header: other for other in self.loops if other.parent is loop}
        visited: set[int] = set()
        waiting = [(entry, state)]
        unknown_from: dict[int, set[str]] = {}
        while waiting:
            number, state = waiting.pop()
            if number in visited or (loop and number not in loop.blocks):
                continue
            visited.add(number)
            _forget(state, unknown_from.pop(number, set()))
            if number in inner and inner[number] is not loop:
                child = inner[number]
                visited |= child.blocks
                changed = set().union(*(self._written[block] for block in child.blocks))
                if child.trips is None:
                    child.trips = self._count(child, dict(state))
                _forget(state, changed)
                self._explore(child, child.header, dict(state))
                exits = {target for block in child.blocks for target in self.blocks[block].after}
                waiting += [(target, dict(state)) for target in sorted(exits - child.blocks, reverse=True)]
                continue
            choice = self._run_block(number, state)
            after = self.blocks[number].after
            if len(after) == 2 and choice is None:
                join = self._join[number]
                if join is not None:
                    unknown_from.setdefault(join, set()).update(self._written_between(after, join))
                waiting.append((after[1], dict(state)))
                waiting.append((after[0], state))
            else:
                waiting += [(target, dict(state)) for target in after if target != (loop.header if loop else None)]

    def _count(self, loop: Loop, state: State) -> int | None:
        """Trips of ``loop`` entered with ``state``; loops inside it only make what they write unknown."""
        inner = {other.header: other for other in self.loops if other.parent is loop}
        pending: dict[int, set[str]] = {}
        number, trips, steps = loop.header, 1, 0
        while steps < MOST_STEPS:
            if number in pending:
                _forget(state, pending.pop(number))
            if number in inner:
                child = inner[number]
                _forget(state, set().union(*(self._written[block] for block in child.blocks)))
                exits = {target for block in child.blocks for target in self.blocks[block].after} - child.blocks
                if len(exits) != 1:
                    return None
                following = exits.pop()
            else:
                choice = self._run_block(number, state)
                steps += self.blocks[number].end - self.blocks[number].first
                after = self.blocks[number].after
                if not after:
                    return trips
                if len(after) == 2 and choice is None:
                    join = self._join[number]
                    if join is None or join not in loop.blocks or not set(after) <= loop.blocks:
                        return None
                    if loop.header in after or join == loop.header:
                        return None
                    pending.setdefault(join, set()).update(self._written_between(after, join))
                    following = after[0]
                else:
                    following = after[choice or 0] if len(after) == 2 else after[0]
            if following == loop.header:
                trips += 1
            elif following not in loop.blocks:
                return trips
            number = following
        return None

    def _run_block(self, number: int, state: State) -> int | None:
        """Run a block; whether its branch is taken."""
        block = self.blocks[number]
        for index in range(block.first, block.end):
            self.semantics.step(self.instructions[index], self._writes[index], state)
        if len(block.after) < 2:
            return 0
        return self.semantics.taken(self.instructions[block.end - 1], state)

    def _written_between(self, starts: list[int], join: int) -> set[str]:
        seen: set[int] = set()
        waiting = [start for start in starts if start != join]
        while waiting:
            number = waiting.pop()
            if number not in seen:
                seen.add(number)
                waiting += [target for target in self.blocks[number].after if target != join]
        return set().union(*(self._written[number] for number in seen)) if seen else set()


def _forget(state: State, names: set[str]) -> None:
    everything = "*" in names
    for name in [key for key in state if key in names or (everything and not key.startswith(("R", "UR")))]:
        del state[name]


def _split(instructions: list[Instruction], semantics: Semantics) -> list[Block]:
    flows = [semantics.flow(instruction) for instruction in instructions]
    starts = {0} | {instruction.target for instruction in instructions if instruction.target is not None}
    starts |= {index + 1 for index, flow in enumerate(flows) if flow != "next"}
    bounds = sorted(start for start in starts if start < len(instructions))
    number_of = {start: number for number, start in enumerate(bounds)}
    blocks = []
    for number, (first, end) in enumerate(zip(bounds, [*bounds[1:], len(instructions)], strict=True)):
        flow, target = flows[end - 1], instructions[end - 1].target
        block = Block(first, end)
        if flow in ("next", "branch", "call") and number + 1 < len(bounds):
            block.after.append(number + 1)
        if flow == "call":
            if target is None:
                raise ValueError(f"loops: {instructions[end - 1].opcode} calls a function outside this kernel's code")
            block.callee = number_of[target]
        elif flow in ("branch", "jump") and target is not None:
            block.after.append(number_of[target])
        blocks.append(block)
    return blocks


def _reach(after: list[list[int]], entry: int) -> set[int]:
    seen: set[int] = set()
    waiting = [entry]
    while waiting:
        number = waiting.pop()
        if number not in seen:
            seen.add(number)
            waiting += after[number]
    return seen


def _dominators(after: list[list[int]], entry: int) -> dict[int, set[int]]:
    """For each block that ``entry`` reaches, the blocks on every path to it, itself included."""
    nodes = _reach(after, entry)
    before: dict[int, list[int]] = {node: [] for node in nodes}
    for node in nodes:
        for target in after[node]:
            before[target].append(node)
    found = {node: set(nodes) for node in nodes}
    found[entry] = {entry}
    changed = True
    while changed:
        changed = False
        for node in sorted(nodes - {entry}):
            new = {node} | set.intersection(*(found[other] for other in before[node]))
            if new != found[node]:
                found[node], changed = new, True
    return found


def _immediate_postdominators(after: list[list[int]]) -> list[int | None]:
    """For each block, the next one that every path to an end of the program passes; None where there is none."""
    count = len(after)
    backward: list[list[int]] = [[] for _ in range(count + 1)]
    for node, targets in enumerate(after):
        for target in targets or [count]:
            backward[target].append(node)
    behind = _dominators(backward, count)
    return [
        max((other for other in behind.get(node, {node}) - {node}), key=lambda o: len(behind[o]), default=None)
        if node in behind
        else None
        for node in range(count)
    ]


def _retreating_edges(after: list[list[int]], entry: int) -> list[tuple[int, int]]:
    """Edges to a block that is still open in a depth-first walk."""
    found: list[tuple[int, int]] = []
    open_blocks: set[int] = {entry}
    seen = {entry}
    path = [(entry, iter(after[entry]))]
    while path:
        node, targets = path[-1]
        target = next(targets, None)
        if target is None:
            open_blocks.discard(node)
            path.pop()
        elif target in open_blocks:
            found.append((node, target))
        elif target not in seen:
            seen.add(target)
            open_blocks.add(target)
            path.append((target, iter(after[target])))
    return found
