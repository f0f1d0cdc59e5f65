"""Reading machine code, occupancy and budgets, on text and numbers of known meaning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("triton")

from benchmarks.audit.budgets import Budget, broken, read_budgets, unused
from benchmarks.audit.count import Part
from benchmarks.audit.occupancy import occupancy
from benchmarks.audit.offline import Binary
from benchmarks.audit.opcodes import (
    amd_opcodes,
    global_loads,
    load_bytes,
    nvidia_opcodes,
    tensor_opcodes,
    widest_load,
)
from benchmarks.audit.usage import amd_usage, nvidia_usage

SASS = """
     Function _k:
      REG:64 STACK:24 SHARED:1024 LOCAL:0 CONSTANT[0]:568 TEXTURE:0
            /*0000*/    @!P0 IADD3 R2, P1, R2.reuse, 0x40, RZ ;  /* 0x000000400202a810 */
                                                              /* 0x000fe40007f3e0ff */
            /*0010*/    STL [R1], R7 ;
            /*0020*/    STL.64 [R1+0x8], R8 ;
            /*0030*/    @!UP0 LDL.LU.64 R46, [R1] ;
            /*0040*/    LDL.U8 R47, [R1] ;
            /*0050*/    EXIT ;
        .L_x_0:
            /*0060*/    BRA `(.L_x_0);
            /*0070*/    NOP;
"""
AMD = """_k:
.Lfunc_begin0:
\t.loc\t1 7 3
; %bb.0:
\ts_load_dwordx2 s[0:1], s[4:5], 0x0
\tscratch_store_dwordx4 off, v[2:5], off offset:16 ; 16-byte Folded Spill
\tscratch_load_dword v2, off, off
\tscratch_load_ushort v2, off, off
\ts_endpgm
\t.section\t.rodata
\t.amdhsa_kernel _k
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 36
    .sgpr_spill_count: 2
    .vgpr_count:     512
    .vgpr_spill_count: 4
"""


def test_reads_nvidia_figures_by_width() -> None:
    assert nvidia_usage(SASS, "_k") == (64, 3, 0, 12 + 9, 24, 1024)
    with pytest.raises(ValueError, match="no resource usage of _other"):
        nvidia_usage(SASS, "_other")


def test_reads_amd_figures_by_width() -> None:
    assert amd_usage(AMD) == (512, 4, 6, 16 + 4 + 2, 36, 0)
    with pytest.raises(ValueError, match=r"must hold \.vgpr_count once, got 2"):
        amd_usage(AMD + AMD)


def test_opcodes_are_those_of_the_kernel_without_padding() -> None:
    assert nvidia_opcodes(SASS) == ["IADD3", "STL", "STL.64", "LDL.LU.64", "LDL.U8", "EXIT", "BRA"]
    assert amd_opcodes(AMD) == [
        "s_load_dwordx2", "scratch_store_dwordx4", "scratch_load_dword", "scratch_load_ushort", "s_endpgm"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("opcode", "width"),
    [
        ("LDG.E.128", "16"), ("LDG.E.64.CONSTANT", "8"), ("LDG.E", "4"), ("LDG.E.U16", "2"), ("LDG.E.ENL2.256", "32"),
        ("LDGSTS.E.BYPASS.128", "16"), ("UTMALDG.2D", "TMA"), ("LDS.128", None), ("STG.E.128", None),
        ("global_load_dwordx4", "16"), ("buffer_load_ushort", "2"), ("buffer_load_dword", "4"), ("s_load_dword", None),
    ],
)  # fmt: skip
def test_width_of_a_load(opcode: str, width: str | None) -> None:
    assert load_bytes(opcode) == width


def test_loads_are_counted_by_width_and_matrix_instructions_named() -> None:
    opcodes = ("LDG.E", "LDG.E", "LDG.E.128", "UTMALDG.2D", "HGMMA.64x64x16.F32", "UTCHMMA", "v_mfma_f32_16x16x16_bf16")
    loads = global_loads(opcodes)
    assert list(loads.items()) == [("TMA", 1), ("16", 1), ("4", 2)]
    assert (widest_load(loads), widest_load({"TMA": 1}), widest_load({})) == (16, 16, 0)
    assert tensor_opcodes((*opcodes, "FFMA")) == ["HGMMA", "UTCHMMA", "v_mfma_f32_16x16x16_bf16"]


@pytest.mark.parametrize(
    ("target", "warps", "registers", "shared", "bound"),
    [
        ("sm_90", 8, 32, 0, (64, 64, "threads")),
        ("sm_90", 1, 32, 0, (32, 64, "blocks")),
        ("sm_90", 8, 110, 0, (16, 64, "registers")),  # 112 a lane: 4 warps on each partition
        ("sm_80", 4, 255, 0, (8, 64, "registers")),
        ("sm_80", 4, 32, 48 * 1024, (12, 64, "shared")),  # 49 KiB each of 164
        ("sm_100", 4, 32, 113 * 1024, (8, 64, "shared")),
        ("gfx942", 4, 128, 0, (16, 32, "registers")),
        ("gfx942", 4, 512, 0, (4, 32, "registers")),
        ("gfx942", 4, 32, 40 * 1024, (4, 32, "shared")),
    ],
)
def test_occupancy_bound(target: str, warps: int, registers: int, shared: int, bound: tuple[int, int, str]) -> None:
    assert occupancy(target, warps, registers, shared) == bound


BINARY = Binary(
    kernel="_k", target="sm_90", config="", key="", threads=128, registers=80, spilled_registers=0, parked_registers=0,
    spill_bytes=0, stack_bytes=0, static_shared_bytes=0, shared_bytes=0, tensor_memory_columns=0, resident_warps=24,
    max_warps=64, limited_by="registers", instructions=100, loads={"16": 4}, widest_load_bytes=16, tensor_opcodes=[],
    cases=["lmn_1m:bf16"],
)  # fmt: skip
PART = Part("lmn_1m:bf16", "sm_90", "router", 3)


def test_too_much_memory_is_a_problem() -> None:
    assert replace(BINARY, shared_bytes=100_000).problems() == []
    amd = replace(BINARY, target="gfx942", shared_bytes=100_000)
    assert amd.problems() == ["needs 100000 bytes of shared memory, gfx942 has 65536"]
    blackwell = replace(BINARY, target="sm_100", tensor_memory_columns=1024)
    assert blackwell.problems() == ["needs 1024 columns of tensor memory, sm_100 has 512"]


def test_broken_budget_names_itself_the_figure_and_the_place() -> None:
    kept = Budget("registers", max=80, kernel="_k")
    below = Budget("widest_load_bytes", min=32, target="sm_90")
    launches = Budget("router.launches", max=2, case="lmn_1m:bf16", target="sm_90")
    elsewhere = Budget("registers", max=1, target="sm_80")
    assert broken([kept, elsewhere], [BINARY, replace(BINARY, kernel="_other", registers=255)], [PART]) == []
    assert broken([below, launches], [BINARY], [PART]) == [
        "widest_load_bytes >= 32 of sm_90: is 16 at _k lmn_1m:bf16 sm_90 ()",
        "router.launches <= 2 of lmn_1m:bf16 sm_90: is 3 at lmn_1m:bf16 sm_90",
    ]


def test_a_bound_may_differ_by_target(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text('[[budget]]\nfigure = "instructions"\nkernel = "_k"\nmax = { sm_80 = 200, sm_90 = 90 }\n')
    budgets = read_budgets(path)
    assert [str(budget) for budget in budgets] == [
        "instructions <= 200 of _k sm_80",
        "instructions <= 90 of _k sm_90",
    ]
    assert broken(budgets, [BINARY], []) == ["instructions <= 90 of _k sm_90: is 100 at _k lmn_1m:bf16 sm_90 ()"]


def test_stale_budgets_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text('[[budget]]\nfigure = "registers"\nmax = 9\nkernel = "_gone"\n')
    assert unused(read_budgets(path), [BINARY], [PART]) == ["registers <= 9 of _gone: matches nothing"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[budgets]\n", "the file must have only the keys budget, got budgets"),
        ('[[budget]]\nfigure = "registers"\nmax = 1\nkernal = "_k"\n', "got kernal"),
        ('[[budget]]\nfigure = "speed"\nmax = 1\n', "figure must be one of registers, .* got 'speed'"),
        ('[[budget]]\nfigure = "router.registers"\nmax = 1\n', "got 'router.registers'"),
        ('[[budget]]\nfigure = "registers"\n', "must have one of max and min, a number or numbers by target"),
        ('[[budget]]\nfigure = "registers"\nmax = 1\nmin = 1\n', "must have one of max and min"),
        ('[[budget]]\nfigure = "registers"\nmax = "few"\n', "must have one of max and min"),
        ('[[budget]]\nfigure = "registers"\nmax = { sm_70 = 1 }\n', "target must be one of sm_80, .* got 'sm_70'"),
        ('[[budget]]\nfigure = "registers"\nmax = { sm_80 = 1 }\ntarget = "sm_80"\n', "must have one of max and min"),
        ('[[budget]]\nfigure = "bag.launches"\nmax = 1\nkernel = "_k"\n', "figure of a case, not of a kernel"),
    ],
)
def test_budget_file_is_checked(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_budgets(path)


def test_the_budget_file_is_good() -> None:
    assert read_budgets()
