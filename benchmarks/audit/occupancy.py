"""Occupancy: how many warps of a kernel one multiprocessor can hold, bounded by threads, registers and shared memory.

Sources: NVIDIA, the tables of the CUDA C++ Programming Guide, "Compute Capabilities" (warps, blocks, registers and
shared memory of a multiprocessor, 1 KiB of it reserved for each block from 8.0 on), and the rules of the CUDA occupancy
calculator (registers in units of 256 a warp, from the file of one of four sub-partitions; shared memory in units of
128 bytes). AMD, LLVM's ``GCNSubtarget`` for gfx942 and the CDNA 3 ISA guide: 512 vector registers a lane in units of 8,
8 waves on each of 4 SIMDs, 16 workgroups and 64 KiB of LDS in units of 512 bytes for each compute unit.
"""

from __future__ import annotations

from typing import NamedTuple


class Multiprocessor(NamedTuple):
    """Resources of one SM or CU.

    Attributes:
        warps, blocks: maximum resident at once.
        partition_registers: 32-bit registers, for each lane of a warp, of one of four partitions.
        register_unit: how a warp's registers for each lane are rounded up.
        shared, shared_unit, shared_reserved: bytes in all, the unit of a block, and what the system takes of each.
    """

    warps: int
    blocks: int
    partition_registers: int
    register_unit: int
    shared: int
    shared_unit: int
    shared_reserved: int


PARTITIONS = 4
MULTIPROCESSORS = {
    "sm_80": Multiprocessor(64, 32, 512, 8, 164 * 1024, 128, 1024),
    "sm_90": Multiprocessor(64, 32, 512, 8, 228 * 1024, 128, 1024),
    "sm_100": Multiprocessor(64, 32, 512, 8, 228 * 1024, 128, 1024),
    "gfx942": Multiprocessor(32, 16, 512, 8, 64 * 1024, 512, 0),
}


class Occupancy(NamedTuple):
    """Upper bound of resident warps, the maximum of the hardware, and the resource that sets the bound."""

    resident_warps: int
    max_warps: int
    limited_by: str


def occupancy(target: str, block_warps: int, registers: int, shared_bytes: int) -> Occupancy:
    """The bound for blocks of ``block_warps`` warps with ``registers`` a thread and ``shared_bytes`` a block."""
    has = MULTIPROCESSORS[target]
    per_warp = _round_up(max(registers, 1), has.register_unit)
    resident = PARTITIONS * (has.partition_registers // per_warp)
    of_block = _round_up(shared_bytes + has.shared_reserved, has.shared_unit)
    blocks = {
        "threads": has.warps // block_warps,
        "blocks": has.blocks,
        "registers": resident // block_warps,
        "shared": has.shared // of_block if of_block else has.blocks,
    }
    limit = min(blocks, key=lambda name: blocks[name])
    return Occupancy(blocks[limit] * block_warps, has.warps, limit)


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
