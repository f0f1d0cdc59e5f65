"""What NVIDIA's integer instructions do to the registers that decide a loop, as far as the audit must know it.

A state holds the registers whose value is known; every instruction that is not modelled here makes what it writes
unknown, so that a wrong trip count would need a wrong rule, not a missing one.
"""

from __future__ import annotations

import re
import struct

from benchmarks.audit.machine.instructions import Instruction

State = dict[str, int]

_PREDICATE = re.compile(r"^!?(U?P\d|U?PT)$")
_MASK = 0xFFFFFFFF
_NO_RESULT = re.compile(
    r"^(ST|RED|BAR|BRA|EXIT|RET|NOP|MEMBAR|ERRBAR|CCTL|WARPSYNC|BSYNC|BSSY|DEPBAR|UTMA|FENCE|SYNCS\.ARR)"
)
_MODELLED = {
    "ISETP", "PLOP3", "CS2R", "HFMA2", "MOV", "R2UR", "SEL", "IADD3", "VIADD", "IADD", "IMAD", "LOP3", "SHF",
}  # fmt: skip
_COMPARE = {
    "EQ": lambda a, b: a == b,
    "NE": lambda a, b: a != b,
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
}
_COMBINE = {"AND": lambda a, b: a and b, "OR": lambda a, b: a or b, "XOR": lambda a, b: a != b}


def writes(instruction: Instruction) -> list[str]:
    """Registers and predicates the instruction may write; ``*`` stands for all predicates."""
    opcode, operands = instruction.opcode, instruction.operands
    if _NO_RESULT.match(opcode):
        return []
    if opcode.startswith("R2P"):
        return ["*"]
    found = []
    position = 0
    while position < len(operands) and _PREDICATE.match(operands[position]):
        found.append(operands[position])
        position += 1
    if (found and "SETP" in opcode) or "PLOP3" in opcode:
        return [name for name in found[:2] if not name.endswith("PT")]
    if position < len(operands) and (match := re.fullmatch(r"(U?R)(\d+)(?:\.\w+)*", operands[position])):
        width = _result_registers(opcode)
        first = int(match[2])
        found += [f"{match[1]}{first + offset}" for offset in range(width)]
        for operand in operands[position + 1 :]:
            if not _PREDICATE.match(operand) or operand.startswith("!"):
                break
            found.append(operand)
    return [name for name in found if not name.endswith("PT")]


def step(instruction: Instruction, written: list[str], state: State) -> None:
    """Update ``state`` by one instruction, which writes ``written``."""
    guard = read(instruction.guard, state) if instruction.guard else 1
    if guard == 0 or not written:
        return
    results = _evaluate(instruction, state) if guard == 1 else None
    for name in written:
        if name == "*":
            for predicate in [key for key in state if key.startswith(("P", "UP"))]:
                del state[predicate]
        elif results is not None and results.get(name) is not None:
            state[name] = results[name]
        else:
            state.pop(name, None)


def taken(branch: Instruction, state: State) -> int | None:
    """Whether a branch is taken: 1, 0, or None where that is unknown."""
    guards = [branch.guard] if branch.guard else []
    guards += [operand for operand in branch.operands if _PREDICATE.match(operand)]
    values = [read(guard, state) for guard in guards]
    if 0 in values:
        return 0
    return None if None in values else 1


def read(operand: str, state: State) -> int | None:
    """Value of a register, predicate or immediate, 32 bits unsigned; None where unknown."""
    operand = operand.replace(".reuse", "")
    if _PREDICATE.match(operand):
        name = operand.lstrip("!")
        value = 1 if name.endswith("PT") else state.get(name)
        return value if value is None or not operand.startswith("!") else 1 - value
    negative, inverted, name = operand.startswith("-"), operand.startswith("~"), operand.lstrip("-~")
    if name in ("RZ", "URZ", "SRZ"):
        value: int | None = 0
    elif re.fullmatch(r"0x[0-9a-f]+|\d+", name):
        value = int(name, 0)
    else:
        value = state.get(name)
    if value is None:
        return None
    return (-value if negative else ~value if inverted else value) & _MASK


def _result_registers(opcode: str) -> int:
    """How many 32-bit registers a result takes; too many only makes more unknown."""
    parts = opcode.split(".")
    base = parts[0]
    if "WGMMA" in base or base.startswith(("HGMMA", "QGMMA", "IGMMA", "BGMMA")):
        columns = re.search(r"64x(\d+)x", opcode)
        return int(columns[1]) // 2 if columns else 128
    if base.startswith(("HMMA", "IMMA", "QMMA", "DMMA", "OMMA")):
        return 4
    if base.startswith("LDTM"):
        return next((int(part[1:]) for part in parts if re.fullmatch(r"x\d+", part)), 128)
    if "256" in parts:
        return 8
    if "128" in parts or "4" in parts or "M88" in parts:
        return 4
    wide = {"64", "WIDE", "U64", "S64", "F64", "F32x2", "2"} & set(parts)
    double = base in {"DADD", "DMUL", "DFMA", "DMNMX", "CS2R", "IADD64", "FADD2", "FMUL2", "FFMA2"}
    return 2 if wide or double else 1


def _evaluate(instruction: Instruction, state: State) -> dict[str, int] | None:
    """Results by register of a modelled instruction; None for any other."""
    base, *modifiers = instruction.opcode.split(".")
    name = base.removeprefix("U") if base.startswith(("UI", "UM", "UP", "UL", "US", "UV")) else base
    if name not in _MODELLED:
        return None
    operands = instruction.operands
    if name in ("ISETP", "PLOP3"):
        return _predicates(name, modifiers, operands, state)
    if base == "CS2R" or (base == "HFMA2" and _is_zero_product(operands)):
        return _constant(base, modifiers, operands)
    sources = [read(operand, state) for operand in operands]
    if name in ("MOV", "R2UR") and len(operands) == 2:
        return _one(operands, sources[-1])
    if name == "SEL":
        chosen = None if sources[3] is None else sources[1] if sources[3] else sources[2]
        return _one(operands, chosen)
    if name in ("IADD3", "VIADD", "IADD", "IMAD") and "WIDE" not in modifiers and "HI" not in modifiers:
        return _add(name, modifiers, operands, state)
    if name == "LOP3" and not _PREDICATE.match(operands[0]):
        return _one(operands, _lookup(sources[1:4], sources[4], 32))
    if name == "SHF" and modifiers[:1] == ["L"] and operands[3] == "RZ" and "HI" not in modifiers:
        known = None not in sources[1:3]
        return _one(operands, sources[1] << min(sources[2], 32) if known else None)
    return None


def _one(operands: tuple[str, ...], value: int | None) -> dict[str, int] | None:
    return None if value is None else {operands[0]: value & _MASK}


def _is_zero_product(operands: tuple[str, ...]) -> bool:
    return len(operands) == 5 and operands[1] in ("-RZ", "RZ") and operands[2] == "RZ"


def _constant(base: str, modifiers: list[str], operands: tuple[str, ...]) -> dict[str, int] | None:
    if base == "CS2R":
        if operands[1] != "SRZ":
            return None
        first = int(operands[0][1:])
        return {f"R{first + offset}": 0 for offset in range(1 if "32" in modifiers else 2)}
    try:
        high, low = (struct.unpack("<H", struct.pack("<e", float(part)))[0] for part in operands[3:5])
    except (ValueError, OverflowError):
        return None
    return {operands[0]: high << 16 | low}


def _add(name: str, modifiers: list[str], operands: tuple[str, ...], state: State) -> dict[str, int] | None:
    """IADD3, VIADD and IMAD, with carries in (``.X``) and out."""
    if "64" in modifiers or "S64" in modifiers or "U64" in modifiers:
        return None
    position = 1
    carries_out = []
    while _PREDICATE.match(operands[position]):
        carries_out.append(operands[position])
        position += 1
    rest = operands[position:]
    carries_in = [read(operand, state) for operand in rest if _PREDICATE.match(operand)] if "X" in modifiers else []
    values = [_addend(operand, state) for operand in rest if not _PREDICATE.match(operand)]
    if None in values or None in carries_in:
        return None
    if name == "IMAD":
        values = [values[0] * values[1], *values[2:]]
    total = sum(values) + sum(carries_in)
    results = {operands[0]: total & _MASK}
    if carries_out:
        results[carries_out[0]] = int(total > _MASK)
        results.update({name: int(total > 2 * _MASK + 1) for name in carries_out[1:]})
    return results


def _addend(operand: str, state: State) -> int | None:
    """As :func:`read`, but minus zero, ``~0 + 1``, is 2^32: it carries."""
    value = read(operand, state)
    return 1 << 32 if value == 0 and operand.startswith("-") else value


def _predicates(name: str, modifiers: list[str], operands: tuple[str, ...], state: State) -> dict[str, int] | None:
    if name == "PLOP3":
        inputs = [read(operand, state) for operand in operands[2:5]]
        table = [int(operand, 0) for operand in operands[5:7]]
        values = [_lookup(inputs, lut, 1) for lut in table]
        return {key: value for key, value in zip(operands[:2], values, strict=True) if value is not None}
    first, second, combined = (read(operand, state) for operand in operands[2:5])
    if None in (first, second, combined) or "64" in modifiers or "U64" in modifiers or "S64" in modifiers:
        return None
    if "U32" not in modifiers:
        first, second = (value - (value >> 31 << 32) for value in (first, second))
    compare = next(part for part in modifiers if part in _COMPARE)
    result = _COMPARE[compare](first, second)
    if "EX" in modifiers:  # the high words: equal ones leave the verdict to the low words
        low = read(operands[5], state)
        if low is None:
            return None
        if compare == "EQ":
            result = result and bool(low)
        elif compare == "NE":
            result = result or bool(low)
        elif first == second:
            result = bool(low)
    combine = _COMBINE[next(part for part in modifiers if part in _COMBINE)]
    both = [int(bool(combine(value, bool(combined)))) for value in (result, not result)]
    return dict(zip(operands[:2], both, strict=True))


def _lookup(inputs: list[int | None], table: int | None, bits: int) -> int | None:
    """Bitwise function of three inputs by its truth table, as LOP3 and PLOP3 have it; None where an unknown matters."""
    if table is None:
        return None
    result = 0
    for bit in range(bits):
        outcomes = {
            table >> (a << 2 | b << 1 | c) & 1
            for a in _choices(inputs[0], bit)
            for b in _choices(inputs[1], bit)
            for c in _choices(inputs[2], bit)
        }
        if len(outcomes) > 1:
            return None
        result |= outcomes.pop() << bit
    return result


def _choices(value: int | None, bit: int) -> tuple[int, ...]:
    return (0, 1) if value is None else (value >> bit & 1,)


def waits(instruction: Instruction) -> bool:
    """Whether the instruction asks for a barrier's phase or for tensor memory, to be repeated until it gets it."""
    return "TRYWAIT" in instruction.opcode or instruction.opcode.startswith("UTCATOMSWS")


def flow(instruction: Instruction) -> str:
    """How control leaves an instruction: ``next``, ``branch``, ``jump``, ``call`` or ``end``.

    A guarded exit counts as not taken, and so does the branch for a warp that has come apart (``BRA.DIV``). ``ptxas``
    for sm_80 leaves some loops by a ``CALL`` to a label of the same function: that is a branch.
    """
    base = instruction.opcode.split(".")[0]
    conditional = bool(instruction.guard) or any(_PREDICATE.match(operand) for operand in instruction.operands)
    if base in ("EXIT", "RET"):
        return "next" if instruction.guard else "end"
    if base == "CALL":
        if instruction.into_function:
            return "call"
        return "branch" if conditional else "jump"
    if base in ("BRA", "JMP"):
        if ".DIV" in instruction.opcode:
            return "next"
        return "branch" if conditional else "jump"
    if base in ("BRX", "JMX", "BRXU"):
        raise ValueError(f"sass: {instruction.opcode} jumps to a computed address, which has no fixed target")
    return "next"
