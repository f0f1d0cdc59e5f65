"""Registers, spills, stack and shared memory of a compiled kernel, read from its machine code.

- NVIDIA, from the cubin by the ``cuobjdump`` of Triton's wheel: ``REG``, ``STACK``, ``LOCAL`` and ``SHARED`` of
  ``-res-usage``; spill bytes are the widths of the ``STL`` and ``LDL`` instructions, which on a spilling kernel add up
  to the bytes that ``ptxas -v`` prints. The binary is read rather than compiled a second time, so no flag can differ.
- AMD, from the assembly: ``.vgpr_count`` (accumulation registers included), ``.private_segment_fixed_size``, and the
  widths of the ``scratch_*`` instructions. Its ``.sgpr_spill_count`` and ``.vgpr_spill_count`` also count what moves to
  other registers: scalars to lanes of a vector register, vectors to accumulation registers. Such a move costs an
  instruction and no memory, so it is no spill here, but a figure of its own.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import triton

LOCAL_BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
SCRATCH_BYTES = {"byte": 1, "short": 2, "dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16}


class Usage(NamedTuple):
    """Resources of one kernel.

    Attributes:
        registers: 32-bit vector registers of a thread.
        spilled_registers: registers with a spill store to memory.
        parked_registers: on AMD, registers that the compiler counts as spilled, to memory or to other registers.
        spill_bytes: bytes of all spill stores and loads in the code of a thread; an instruction in a loop counts once.
        stack_bytes: local memory of a thread.
        static_shared_bytes: shared memory of a block that is fixed in the binary, the driver's own bytes included.
    """

    registers: int
    spilled_registers: int
    parked_registers: int
    spill_bytes: int
    stack_bytes: int
    static_shared_bytes: int


def disassemble(cubin: bytes) -> str:
    """Resource usage and code of a cubin, as ``cuobjdump`` prints them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", "-sass", str(path)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def nvidia_usage(disassembly: str, kernel: str) -> Usage:
    """Read ``cuobjdump -res-usage -sass`` for one kernel.

    Raises:
        ValueError: there is no resource line for ``kernel``.
    """
    line = re.search(rf"Function {re.escape(kernel)}:\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", disassembly)
    if line is None:
        raise ValueError(f"nvidia_usage: no resource usage of {kernel} in the output of cuobjdump")
    registers, stack, shared, local = map(int, line.groups())
    stored, loaded = (
        sum(_width(modifiers) for modifiers in re.findall(rf"\b{opcode}((?:\.\w+)*) ", disassembly))
        for opcode in ("STL", "LDL")
    )
    return Usage(registers, -(-stored // 4), 0, stored + loaded, stack + local, shared)


def amd_usage(assembly: str) -> Usage:
    """Read the kernel's metadata and scratch instructions in AMD assembly.

    Raises:
        ValueError: a figure is missing, or there are several kernels.
    """

    def figure(name: str) -> int:
        values = re.findall(rf"^\s+\.{name}:\s+(\d+)$", assembly, re.MULTILINE)
        if len(values) != 1:
            raise ValueError(f"amd_usage: the assembly must hold .{name} once, got {len(values)}")
        return int(values[0])

    scratch = [
        (direction, SCRATCH_BYTES[width])
        for direction, width in re.findall(
            r"^\s+scratch_(load|store)_[us]?(byte|short|dword(?:x\d)?)", assembly, re.MULTILINE
        )
    ]
    return Usage(
        registers=figure("vgpr_count"),
        spilled_registers=-(-sum(width for direction, width in scratch if direction == "store") // 4),
        parked_registers=figure("vgpr_spill_count") + figure("sgpr_spill_count"),
        spill_bytes=sum(width for _, width in scratch),
        stack_bytes=figure("private_segment_fixed_size"),
        static_shared_bytes=figure("group_segment_fixed_size"),
    )


def _width(modifiers: str) -> int:
    return next((LOCAL_BYTES[each] for each in modifiers.split(".") if each in LOCAL_BYTES), 4)
