"""What the instructions of a kernel are: how wide it loads from global memory, and whether it uses the matrix units."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from benchmarks.audit.machine.instructions import Instruction

TMA = "TMA"
_NVIDIA_LOAD = re.compile(r"^(LDG|LDGSTS)\b")
_NVIDIA_BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
_BULK_LOAD = re.compile(r"^(UTMALDG|UBLKCP)\b")
_AMD_LOAD = re.compile(r"^(?:global|buffer|flat)_load_(?:lds_)?(?:[us]?(byte|short)|(dword(?:x\d)?))")
_AMD_BYTES = {"byte": 1, "short": 2, "dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16}
_TENSOR = re.compile(r"^([HIDQOB]G?MMA|UTC\w*MMA|v_s?mfmac?_)")


def global_loads(instructions: Sequence[Instruction], weights: Sequence[float]) -> dict[str, float]:
    """Weighted loads from global memory by bytes a thread, widest first; ``TMA`` is a bulk copy by the copy engine."""
    found: Counter[str] = Counter()
    for instruction, weight in zip(instructions, weights, strict=True):
        width = load_bytes(instruction.opcode)
        if width is not None and weight:
            found[width] += weight
    return dict(sorted(found.items(), key=lambda item: -int(item[0]) if item[0] != TMA else -1024))


def load_bytes(opcode: str) -> str | None:
    """Bytes that a thread loads from global memory by this instruction, or ``TMA``; None if it does not."""
    if _BULK_LOAD.match(opcode):
        return TMA
    if _NVIDIA_LOAD.match(opcode):
        return str(max((_NVIDIA_BYTES[part] for part in opcode.split(".") if part in _NVIDIA_BYTES), default=4))
    if match := _AMD_LOAD.match(opcode):
        return str(_AMD_BYTES[match[1] or match[2]])
    return None


def tensor_opcodes(instructions: Sequence[Instruction]) -> list[str]:
    """The matrix instructions present, without modifiers."""
    names = {instruction.opcode.split(".")[0] for instruction in instructions if _TENSOR.match(instruction.opcode)}
    return sorted(names)
