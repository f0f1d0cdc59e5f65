"""Reading machine code: parsing, control flow, trips, occupancy, load widths and budgets, on text of known meaning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("triton")

from benchmarks.audit.budgets import Budget, broken, read_budgets, unused
from benchmarks.audit.count import Binary, Part
from benchmarks.audit.machine import amd, sass
from benchmarks.audit.machine.instructions import Frame, Instruction, parse_amd, parse_sass
from benchmarks.audit.machine.loops import Program
from benchmarks.audit.machine.sources import normal_head, statements
from benchmarks.audit.machine.weights import Declarations, weigh
from benchmarks.audit.occupancy import occupancy
from benchmarks.audit.opcodes import global_loads, load_bytes, tensor_opcodes

PTX = """.version 9.1
.loc 1 7 3 // kernel.py:7:3
add
.loc 2 9 1 // library.py:9:1 @[ kernel.py:8:5 ]
sub
.file 1 "/here/kernel.py"
.file 2 "/there/library.py"
"""


def sass_program(*lines: str) -> Program:
    """A program of SASS lines; ``NAME:`` is a label."""
    body = "".join(f"{line}\n" if line.endswith(":") else f"        /*0000*/  {line} ;\n" for line in lines)
    return Program(parse_sass(f"head\n.text._k:\n{body}", "", "_k"), sass)


def amd_program(*lines: str) -> Program:
    body = "".join(f"{line}\n" if line.endswith(":") else f"\t{line}\n" for line in lines)
    return Program(parse_amd(f"_k:\n.Lfunc_begin0:\n{body}\n\t.section\t.rodata\n"), amd)


def weights_of(program: Program) -> tuple[float, ...]:
    return weigh(program, "_k", "sm_90", {}, Declarations()).of


def test_parses_sass_with_the_lines_it_comes_from() -> None:
    text = """x
.text._k:
	//## File ".nv_debug_ptx_txt", line 3
        /*0000*/               @!P0 IADD3 R2, P1, R2.reuse, 0x40, RZ ;
.L_x_0:
	//## File ".nv_debug_ptx_txt", line 5
        /*0010*/                   BRA `(.L_x_0) ;
        /*0020*/                   CALL.REL.NOINC `($_k$divide) ;
$_k$divide:
        /*0030*/                   EXIT ;
"""
    add, branch, call, end = parse_sass(text, PTX, "_k")
    assert (add.opcode, add.guard, add.operands) == ("IADD3", "!P0", ("R2", "P1", "R2.reuse", "0x40", "RZ"))
    assert add.frames == (Frame("/here/kernel.py", 7),)
    assert branch.frames == (Frame("/here/kernel.py", 8), Frame("/there/library.py", 9))
    assert (branch.target, branch.into_function) == (1, False)
    assert (call.target, call.into_function) == (3, True)
    assert end.opcode == "EXIT"


def test_counts_trips_with_carries_in_nested_loops() -> None:
    program = sass_program(
        "UMOV UR4, URZ",
        "outer:",
        "CS2R R2, SRZ",
        "inner:",
        "IADD3 R2, P0, R2, 0x40, RZ",
        "IADD3.X R3, RZ, R3, RZ, P0, !PT",
        "ISETP.GE.U32.AND P0, PT, R2, 0x3c0, PT",
        "ISETP.GE.U32.AND.EX P0, PT, R3, RZ, PT, P0",
        "@!P0 BRA `(inner)",
        "UIADD3 UR4, UR4, 0x1, URZ",
        "UISETP.NE.AND UP0, UPT, UR4, 0x7, UPT",
        "BRA.U UP0, `(outer)",
        "EXIT",
        "trap:",
        "BRA `(trap)",
    )
    assert [(loop.depth, loop.trips) for loop in program.loops] == [(1, 7), (2, 15)]
    assert weights_of(program) == (1, 7, *[7 * 15] * 5, 7, 7, 7, 1, 0)


def test_subtraction_of_zero_carries() -> None:
    program = sass_program(
        "CS2R R2, SRZ",
        "CS2R R4, SRZ",
        "again:",
        "IADD3 R2, P0, R2, -R4, RZ",
        "IADD3.X R3, R3, ~R5, RZ, P0, !PT",
        "IADD3 R2, R2, 0x1, RZ",
        "ISETP.NE.U32.AND P0, PT, R2, 0x6, PT",
        "ISETP.NE.AND.EX P0, PT, R3, RZ, PT, P0",
        "@P0 BRA `(again)",
        "EXIT",
    )
    assert [loop.trips for loop in program.loops] == [6]


def test_loop_that_depends_on_data_or_on_the_loop_around_it_has_no_trips() -> None:
    on_data = ("again:", "LDG.E R0, desc[UR4][R2.64]", "ISETP.NE.AND P0, PT, R0, RZ, PT", "@P0 BRA `(again)", "EXIT")
    assert [loop.trips for loop in sass_program(*on_data).loops] == [None]
    triangle = (
        "MOV R0, 0x4",
        "outer:",
        "MOV R1, RZ",
        "inner:",
        "IADD3 R1, R1, 0x1, RZ",
        "ISETP.NE.AND P0, PT, R1, R0, PT",
        "@P0 BRA `(inner)",
        "IADD3 R0, R0, -0x1, RZ",
        "ISETP.NE.AND P0, PT, R0, RZ, PT",
        "@P0 BRA `(outer)",
        "EXIT",
    )
    assert [loop.trips for loop in sass_program(*triangle).loops] == [4, None]


def test_what_a_branch_may_write_is_unknown_where_its_paths_meet() -> None:
    def trips(bound: str) -> list[float | None]:
        return [
            loop.trips
            for loop in sass_program(
                "MOV R0, 0x5",
                "MOV R1, 0x5",
                "ISETP.NE.AND P0, PT, R9, RZ, PT",
                "@P0 BRA `(.L_skip)",
                "MOV R0, 0x8",
                ".L_skip:",
                "MOV R2, RZ",
                "again:",
                "IADD3 R2, R2, 0x1, RZ",
                f"ISETP.LT.AND P0, PT, R2, {bound}, PT",
                "@P0 BRA `(again)",
                "EXIT",
            ).loops
        ]

    assert trips("R1") == [5]
    assert trips("R0") == [None]


def test_code_behind_the_end_that_jumps_back_is_no_loop() -> None:
    program = sass_program(
        "ISETP.NE.AND P0, PT, R9, RZ, PT",
        "@P0 BRA `(.L_cold)",
        ".L_back:",
        "EXIT",
        ".L_cold:",
        "MOV R0, 0x8",
        "BRA `(.L_back)",
    )
    assert program.loops == []
    assert weights_of(program) == (1, 1, 1, 1, 1)


def test_loop_that_waits_for_the_hardware_counts_once() -> None:
    program = sass_program(".L_wait:", "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR25], R4", "@!P0 BRA `(.L_wait)", "EXIT")
    assert weights_of(program) == (1, 1, 1)


def test_called_function_weighs_what_its_calls_weigh() -> None:
    program = sass_program(
        "MOV R0, RZ",
        ".L_again:",
        "CALL.REL.NOINC `($divide)",
        "IADD3 R0, R0, 0x1, RZ",
        "ISETP.NE.AND P0, PT, R0, 0x3, PT",
        "@P0 BRA `(.L_again)",
        "CALL.REL.NOINC `($divide)",
        "EXIT",
        "$divide:",
        "MOV R8, RZ",
        "RET.REL.NODEC R20 `(_k)",
    )
    assert weights_of(program)[-2:] == (4, 4)


def test_jump_into_a_cycle_is_an_error() -> None:
    with pytest.raises(ValueError, match="into the middle of a cycle"):
        sass_program("@P0 BRA `(.L_b)", ".L_a:", "NOP", ".L_b:", "NOP", "@P1 BRA `(.L_a)", "EXIT")


@pytest.mark.parametrize(
    ("loop", "trips"),
    [
        (("s_mov_b32 s0, 0", "again:", "s_add_i32 s0, s0, 16", "s_cmpk_lt_u32 s0, 0x78", "s_cbranch_scc1 again"), 8),
        (("s_mov_b64 s[0:1], 0", "again:", "s_add_u32 s0, s0, 8", "s_addc_u32 s1, s1, 0",
          "s_cmp_lg_u64 s[0:1], 32", "s_cbranch_scc1 again"), 4),
        (("v_mov_b32_e32 v1, 0", "again:", "v_add_u32_e32 v1, 32, v1", "v_cmp_gt_u32_e32 vcc, 96, v1",
          "s_cbranch_vccnz again"), 3),
        (("again:", "s_add_i32 s0, s0, 16", "s_cmpk_lt_u32 s0, 0x78", "s_cbranch_scc1 again"), None),
    ],
)  # fmt: skip
def test_counts_trips_of_amd_loops(loop: tuple[str, ...], trips: int | None) -> None:
    assert [found.trips for found in amd_program(*loop, "s_endpgm").loops] == [trips]


def test_machine_loop_may_not_run_more_often_than_its_source(tmp_path: Path) -> None:
    source = tmp_path / "kernel.py"
    source.write_text("def f(N):\n    for i in range(0, N):\n        pass\n")
    program = sass_program(
        "MOV R0, RZ", "again:", "IADD3 R0, R0, 0x1, RZ", "ISETP.NE.AND P0, PT, R0, 0x9, PT", "@P0 BRA `(again)", "EXIT"
    )
    frames = (Frame(str(source), 2),)
    program.instructions[:] = [instruction._replace(frames=frames) for instruction in program.instructions]
    assert weigh(program, "_k", "sm_90", {"N": 36}, Declarations()).of[1] == 9
    with pytest.raises(ValueError, match=r"_k on sm_90: `for i in range\(0, N\):` .* runs 9 times .* 5 times"):
        weigh(program, "_k", "sm_90", {"N": 5}, Declarations())


def test_declared_trips_may_be_an_expression(tmp_path: Path) -> None:
    source = tmp_path / "kernel.py"
    source.write_text("while busy:\n    pass\n")
    program = sass_program(
        "again:", "LDG.E R0, desc[UR4][R2.64]", "ISETP.NE.AND P0, PT, R0, RZ, PT", "@P0 BRA `(again)"
    )
    frames = (Frame(str(source), 1),)
    program.instructions[:] = [instruction._replace(frames=frames) for instruction in program.instructions]
    declared = Declarations(trips={"_k": {"while busy:": "CHUNK // 4"}})
    assert weigh(program, "_k", "sm_90", {"CHUNK": 32}, declared).of == (8, 8, 8)
    with pytest.raises(ValueError, match="the declared trips 'CHUNK // 4' of `while busy:`"):
        weigh(program, "_k", "sm_90", {}, declared)


def test_reads_loops_and_branches_of_a_source(tmp_path: Path) -> None:
    source = tmp_path / "kernel.py"
    source.write_text("for i in range(0, N - 1, 2 * S):\n    if i:\n        a\n    else:\n        b\nwhile c:\n    d\n")
    loop, branch, during = statements(str(source))
    assert loop.trips({"N": 17, "S": 2}) == 4
    assert loop.trips({"N": 17}) is None
    assert (branch.kind, branch.text) == ("if", "if i:")
    assert branch.holds(Frame(str(source), 3))
    assert not branch.holds(Frame(str(source), 5))
    assert (during.text, during.trips({})) == ("while c:", None)
    assert normal_head("for i in range( 0, N-1, 2*S ):  # as written") == loop.text
    with pytest.raises(ValueError, match="'while' must be the first line"):
        normal_head("while")
    assert statements(str(tmp_path / "missing.py")) == ()


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


def test_loads_are_weighted_and_matrix_instructions_named() -> None:
    opcodes = ("LDG.E", "LDG.E.128", "UTMALDG.2D", "HGMMA.64x64x16.F32", "UTCHMMA", "v_mfma_f32_16x16x16_bf16", "FFMA")
    instructions = [Instruction(opcode, (), "", None, ()) for opcode in opcodes]
    assert global_loads(instructions, [2, 3, 1, 1, 1, 1, 1]) == {"TMA": 1, "16": 3, "4": 2}
    assert tensor_opcodes(instructions) == ["HGMMA", "UTCHMMA", "v_mfma_f32_16x16x16_bf16"]


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
    kernel="_k", target="sm_90", cases=["lmn_1m:bf16"], config="", key="", threads=128, registers=80, spill_bytes=0,
    parked_registers=0, shared_bytes=0, resident_warps=24, most_warps=64, limited_by="registers", instructions=100,
    weighted_instructions=900, loads={"16": 4}, widest_load_bytes=16, tensor_opcodes=[], loops=(), problems=[],
)  # fmt: skip
PART = Part("lmn_1m:bf16", "sm_90", "router", 2, 1e9, 61.5, None)


def test_broken_budget_names_itself_the_figure_and_the_place() -> None:
    kept = Budget("registers", most=80, kernel="_k")
    below = Budget("widest_load_bytes", least=32, target="sm_90")
    score = Budget("router.instructions_per_score", most=60, case="lmn_1m:bf16", target="sm_90")
    elsewhere = Budget("registers", most=1, target="sm_80")
    assert broken([kept, elsewhere], [BINARY, replace(BINARY, kernel="_other", registers=255)], [PART]) == []
    assert broken([below, score], [BINARY], [PART]) == [
        "widest_load_bytes >= 32 of sm_90: is 16 at _k lmn_1m:bf16 sm_90 ()",
        "router.instructions_per_score <= 60 of lmn_1m:bf16 sm_90: is 61.5 at lmn_1m:bf16 sm_90",
    ]


def test_stale_budgets_and_declarations_are_told(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(
        '[trips._gone_kernel]\n"while x:" = 2\n[[budget]]\nfigure = "registers"\nmost = 9\nkernel = "_gone"\n'
    )
    found = unused(read_budgets(path), [BINARY], [PART])
    assert found == [
        "registers <= 9 of _gone: matches nothing",
        "declarations for _gone_kernel: there is no such kernel",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[budgets]\n", "the file must have only the keys budget, taken, trips, got budgets"),
        ('[[budget]]\nfigure = "registers"\nmost = 1\nkernal = "_k"\n', "got kernal"),
        ('[[budget]]\nfigure = "speed"\nmost = 1\n', "figure must be one of registers, .* got 'speed'"),
        ('[[budget]]\nfigure = "router.registers"\nmost = 1\n', "got 'router.registers'"),
        ('[[budget]]\nfigure = "registers"\n', "must have one number, most or least"),
        ('[[budget]]\nfigure = "registers"\nmost = 1\nleast = 1\n', "must have one number, most or least"),
        ('[[budget]]\nfigure = "bag.launches"\nmost = 1\nkernel = "_k"\n', "figure of a case, not of a kernel"),
        ('[trips._k]\n"while x:" = -1\n', "must be an integer >= 0 or an expression, got -1"),
        ('[taken._k]\n"when x" = 0\n', "budgets.toml: 'when x' must be the first line of a for, while or if"),
        ('[taken._k]\n"if x:" = 2\n', "share of 'if x:' in _k must be 0 to 1, got 2"),
    ],
)
def test_budget_file_is_checked(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_budgets(path)


def test_the_budget_file_is_good() -> None:
    assert read_budgets().limits
