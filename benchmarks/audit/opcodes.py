"""The instructions of a compiled kernel: how many, how wide it loads from global memory, and its matrix instructions.

An instruction counts once, however often it runs. A loop that the compiler unrolls therefore counts more than one that
it keeps. Code that random data never reaches counts like any other: a slow path, or the copy of a shuffle for diverged
warps, which NVIDIA's compiler places behind the end of a kernel.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

TMA = "TMA"
TMA_BYTES = 16
_SASS = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")
_AMD = re.compile(r"^\t([a-z][a-z0-9_]*)", re.MULTILINE)
_NVIDIA_LOAD = re.compile(r"^(LDG|LDGSTS)\b")
_NVIDIA_BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
_BULK_LOAD = re.compile(r"^(UTMALDG|UBLKCP)\b")
_AMD_LOAD = re.compile(r"^(?:global|buffer|flat)_load_(?:lds_)?(?:[us]?(byte|short)|(dword(?:x\d)?))")
_AMD_BYTES = {"byte": 1, "short": 2, "dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16}
_TENSOR = re.compile(r"^([HIDQOB]G?MMA|UTC\w*MMA|v_s?mfmac?_)")


def nvidia_opcodes(disassembly: str) -> list[str]:
    """Opcodes of the one kernel that ``cuobjdump -sass`` prints, with the functions that it calls, without padding."""
    return [opcode for opcode in _SASS.findall(disassembly) if opcode != "NOP"]


def amd_opcodes(assembly: str) -> list[str]:
    """Opcodes of the one kernel in AMD assembly."""
    return _AMD.findall(assembly.split(".Lfunc_begin0:", 1)[1].split("\n\t.section", 1)[0])


def global_loads(opcodes: Sequence[str]) -> dict[str, int]:
    """Number of loads from global memory by bytes a thread, widest first; ``TMA`` is a copy by the copy engine."""
    found = Counter(width for opcode in opcodes if (width := load_bytes(opcode)) is not None)
    return dict(sorted(found.items(), key=lambda item: -int(item[0]) if item[0] != TMA else -1024))


def widest_load(loads: dict[str, int]) -> int:
    """Bytes a thread of the widest load; 0 without loads."""
    return max((TMA_BYTES if width == TMA else int(width) for width in loads), default=0)


def load_bytes(opcode: str) -> str | None:
    """Bytes that a thread loads from global memory by this instruction, or ``TMA``; None if it does not."""
    if _BULK_LOAD.match(opcode):
        return TMA
    if _NVIDIA_LOAD.match(opcode):
        return str(max((_NVIDIA_BYTES[field] for field in opcode.split(".") if field in _NVIDIA_BYTES), default=4))
    if match := _AMD_LOAD.match(opcode):
        return str(_AMD_BYTES[match[1] or match[2]])
    return None


def tensor_opcodes(opcodes: Sequence[str]) -> list[str]:
    """The matrix instructions present, without modifiers."""
    return sorted({opcode.split(".")[0] for opcode in opcodes if _TENSOR.match(opcode)})
