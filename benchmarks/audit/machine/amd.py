"""What AMD's integer instructions do to the registers that decide a loop, as far as the audit must know it.

As in ``sass.py``, every instruction that is not modelled makes what it writes unknown. A vector register counts
as one number while all lanes hold the same one: what comes from the lane's number or from memory is never known, and a
branch on the execution mask is unknown too. ``vcc`` holds 1 or 0 where all lanes agree.
"""

from __future__ import annotations

import re

from benchmarks.audit.machine.instructions import Instruction

State = dict[str, int]

_RANGE = re.compile(r"^([sv])\[(\d+):(\d+)\]$")
_REGISTER = re.compile(r"^([sva]\d+|vcc|scc)$")
_NO_RESULT = re.compile(r"^(s_(cbranch|branch|endpgm|waitcnt|barrier|nop|sleep|setprio|cmp|bitcmp)|\w*_store|ds_write)")
_KEEPS_SCC = re.compile(
    r"^s_(mov|cselect|load|buffer_load|mul_|waitcnt|nop|barrier|cbranch|branch|setprio|sext|bfm|pack)"
)
_TWO_RESULTS = re.compile(r"_co_|_mad_[ui]64|div_scale")
_COMPARE = {
    "eq": lambda a, b: a == b,
    "lg": lambda a, b: a != b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
_IS_COMPARE = re.compile(r"^[sv]_cmp(k?)_([a-z]{2})_([ui])(32|64)(?:_e32|_e64)?$")
_ADD = re.compile(r"^(?:s_(add|addc|sub|addk)_[ui]32|v_(add|sub|subrev)_u32_e32|v_(lshl_add)_u64)$")
_SIGNED_OVERFLOW = re.compile(r"^s_\w+_i32$")
_MOVE = re.compile(r"^(s_mov_b(32|64)|s_movk_i32|v_mov_b32_e32|v_readfirstlane_b32)$")
_BRANCH_ON = {"scc0": ("scc", 0), "scc1": ("scc", 1), "vccz": ("vcc", 0), "vccnz": ("vcc", 1)}


def writes(instruction: Instruction) -> list[str]:
    """Registers the instruction may write."""
    opcode, operands = instruction.opcode, instruction.operands
    found = []
    if opcode.startswith("s_") and not _KEEPS_SCC.match(opcode):
        found.append("scc")
    if _NO_RESULT.match(opcode):
        return found
    for operand in operands[: 2 if _TWO_RESULTS.search(opcode) else 1]:
        found += _names(operand)
    return found


def step(instruction: Instruction, written: list[str], state: State) -> None:
    """Update ``state`` by one instruction, which writes ``written``."""
    results = _evaluate(instruction, state) if written else {}
    for name in written:
        if name in results:
            state[name] = results[name]
        else:
            state.pop(name, None)


def taken(branch: Instruction, state: State) -> int | None:
    """Whether a branch is taken: 1, 0, or None where that is unknown."""
    register, wanted = _BRANCH_ON.get(branch.opcode.removeprefix("s_cbranch_"), ("", 0))
    value = state.get(register)
    return None if value is None else int(value == wanted)


def waits(instruction: Instruction) -> bool:
    """Never: waits are instructions of their own there."""
    return False


def flow(instruction: Instruction) -> str:
    """How control leaves an instruction: ``next``, ``branch``, ``jump`` or ``end``."""
    opcode = instruction.opcode
    if opcode in ("s_setpc_b64", "s_swappc_b64"):
        raise ValueError(f"amd: {opcode} jumps to a computed address, which has no fixed target")
    if opcode == "s_endpgm":
        return "end"
    return "branch" if opcode.startswith("s_cbranch") else "jump" if opcode == "s_branch" else "next"


def _names(operand: str) -> list[str]:
    if match := _RANGE.match(operand):
        return [f"{match[1]}{number}" for number in range(int(match[2]), int(match[3]) + 1)]
    return [operand] if _REGISTER.match(operand) else []


def _read(operand: str, state: State, bits: int = 32) -> int | None:
    """Value of a register, a pair or an immediate, unsigned."""
    if re.fullmatch(r"-?\d+|0x[0-9a-f]+", operand):
        return int(operand, 0) & ((1 << bits) - 1)
    names = _names(operand)
    values = [state.get(name) for name in names]
    if not names or None in values:
        return None
    return sum(value << 32 * place for place, value in enumerate(values))


def _pair(operand: str, value: int) -> State:
    return {name: value >> 32 * place & 0xFFFFFFFF for place, name in enumerate(_names(operand))}


def _evaluate(instruction: Instruction, state: State) -> State:
    """What a modelled instruction writes; empty for any other, or where an input is unknown."""
    opcode, operands = instruction.opcode, instruction.operands
    if match := _IS_COMPARE.match(opcode):
        return _compare(match, operands, state)
    if match := _MOVE.match(opcode):
        value = _read(operands[1], state, 64 if match[2] == "64" else 32)
        if value is not None and opcode == "s_movk_i32":
            value = _extend(value, 16) & 0xFFFFFFFF
        return {} if value is None else _pair(operands[0], value)
    if match := _ADD.match(opcode):
        sums = _add(match[1] or match[2] or match[3], operands, state)
        if _SIGNED_OVERFLOW.match(opcode):
            sums.pop("scc", None)
        return sums
    if opcode in ("s_and_b64", "s_andn2_b64") and operands[:2] == ("vcc", "exec"):
        mask = state.get("vcc") if operands[2] == "vcc" else _mask(operands[2], state)
        if mask is not None:
            return {"vcc": mask if opcode == "s_and_b64" else 1 - mask}
    if opcode == "s_cselect_b64" and "scc" in state:
        chosen = operands[1] if state["scc"] else operands[2]
        if chosen in ("-1", "0"):
            return {
                name: int(chosen == "-1") if name == "vcc" else int(chosen) & 0xFFFFFFFF for name in _names(operands[0])
            }
    return {}


def _mask(operand: str, state: State) -> int | None:
    value = _read(operand, state, 64)
    return {0: 0, 2**64 - 1: 1}.get(value) if value is not None else None


def _add(kind: str, operands: tuple[str, ...], state: State) -> State:
    if kind == "addk":
        operands = (operands[0], operands[0], operands[1])
    if kind == "lshl_add":
        first, shift, second = (_read(operand, state, 64) for operand in operands[1:4])
        if first is None or shift is None or second is None:
            return {}
        return _pair(operands[0], (first << shift) + second)
    first, second = _read(operands[1], state), _read(operands[2], state)
    carry = state.get("scc") if kind == "addc" else 0
    if first is None or second is None or carry is None:
        return {}
    total = second - first if kind == "subrev" else first - second if kind == "sub" else first + second + carry
    return {operands[0]: total & 0xFFFFFFFF, "scc": int(not 0 <= total <= 0xFFFFFFFF)}


def _compare(match: re.Match[str], operands: tuple[str, ...], state: State) -> State:
    immediate, relation, sign, width = match.groups()
    bits = int(width)
    scalar = match[0].startswith("s_")
    first, second = (_read(operand, state, bits) for operand in (operands if scalar else operands[1:3]))
    if first is None or second is None:
        return {}
    if sign == "i":
        first, second = _extend(first, bits), _extend(second, 16 if immediate else bits)
    result = int(_COMPARE[relation](first, second))
    if scalar:
        return {"scc": result}
    if operands[0] == "vcc":
        return {"vcc": result}
    return _pair(operands[0], result * (2**64 - 1))


def _extend(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (value >> bits - 1 << bits)
