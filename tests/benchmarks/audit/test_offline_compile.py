"""The kernels' machine code, compiled for GPUs that need not be here: nothing spills, everything fits, budgets hold.

The compiler runs in programs of its own, because this session interprets the kernels (``TRITON_INTERPRET=1``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from project_root import ROOT

pytest.importorskip("triton")

from benchmarks.audit.__main__ import main
from benchmarks.audit.offline import TARGETS, CompiledKernel, compile_launch
from benchmarks.audit.usage import amd_usage, nvidia_usage
from lmn_kernels.launch import Launch

pytestmark = pytest.mark.offline_compile


def run_without_interpreter(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m`` with these arguments."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    done = run_without_interpreter("tests.helpers.offline_known_kernels")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("audit") / "audit.json"
    done = run_without_interpreter("benchmarks.audit.__main__", "--out", str(path))
    assert path.exists(), done.stderr
    report: dict[str, Any] = json.loads(path.read_text())
    assert done.returncode == (1 if report["problems"] else 0), done.stderr
    return report


def rows_of(known: dict[str, Any], target: str) -> dict[str, dict[str, Any]]:
    return {row["cases"][0]: row for row in known["rows"] if row["target"] == target}


@pytest.mark.parametrize("target", TARGETS)
def test_small_kernel_is_clean_and_large_one_is_caught(known: dict[str, Any], target: str) -> None:
    rows = rows_of(known, target)
    assert 0 < rows["aligned"]["registers"] <= 64
    assert rows["aligned"]["problems"] == []
    for figure in ("spilled_registers", "spill_bytes", "stack_bytes"):
        assert rows["aligned"][figure] == 0
        assert rows["spilling"][figure] > 0
    assert "spills" in rows["spilling"]["problems"][0]
    assert rows["spilling"]["threads"] == TARGETS[target].gpu.warp_size


@pytest.mark.parametrize("target", TARGETS)
def test_arguments_are_specialised_by_alignment(known: dict[str, Any], target: str) -> None:
    rows = rows_of(known, target)
    assert rows["aligned"]["widest_load_bytes"] == 16
    assert rows["misaligned"]["widest_load_bytes"] == 4


@pytest.mark.parametrize("target", TARGETS)
def test_loads_count_as_often_as_their_loops_run(known: dict[str, Any], target: str) -> None:
    """One load for each trip of the source, however the compiler unrolls, splits or peels the loops."""
    rows = rows_of(known, target)
    for case, trips in (("nested", 60 * 50), ("unrolled", 512)):
        assert rows[case]["loads"] == {"4": trips}
        assert {loop["origin"] for loop in rows[case]["loops"]} == {"machine code"}
        assert rows[case]["instructions"] < trips < rows[case]["weighted_instructions"]
    outer = rows["nested"]["loops"][0]
    assert outer["source"] == "for a in range(0, OUTER):"
    assert 60 % outer["trips"] == 0


@pytest.mark.parametrize("target", TARGETS)
def test_trips_come_from_the_launch_or_are_declared(known: dict[str, Any], target: str) -> None:
    """Of a loop whose trips are not in the machine code, the unrolled remainder counts as well, as written."""
    rows = rows_of(known, target)
    index_loads = 0 if target == "gfx942" else 1  # scalar loads there, which are none of a thread
    assert 40 <= rows["argument"]["loads"]["4"] <= 43
    assert {loop["origin"] for loop in rows["argument"]["loops"]} == {"source"}
    declared = 4 * TARGETS[target].gpu.warp_size // 16  # "BLOCK // 16"
    assert declared <= rows["runs"]["loads"]["4"] - 2 * index_loads <= declared + 3
    assert {loop["origin"] for loop in rows["runs"]["loops"]} == {"declared"}
    assert rows["chain"]["loads"]["4"] == 3 + index_loads * 4
    assert [(loop["source"], loop["trips"]) for loop in rows["chain"]["loops"]] == [("while position != 0:", 3)]


@pytest.mark.parametrize("target", TARGETS)
def test_rare_branch_weighs_nothing(known: dict[str, Any], target: str) -> None:
    row = rows_of(known, target)["rare"]
    assert row["loads"] == {"4": 1 if target == "gfx942" else 2}
    assert row["weighted_instructions"] < row["instructions"]


@pytest.mark.parametrize("target", TARGETS)
def test_branch_weighs_its_share(known: dict[str, Any], target: str) -> None:
    before = rows_of(known, target)["rare"]["loads"]["4"]
    assert rows_of(known, target)["half"]["loads"]["4"] == pytest.approx(before + 499 / 2, abs=4)  # unrolled remainders


@pytest.mark.parametrize("target", TARGETS)
def test_undeclared_trips_are_an_error(known: dict[str, Any], target: str) -> None:
    row = known["undeclared"][target]
    assert row["weighted_instructions"] is None
    (message,) = row["problems"]
    assert message.startswith(f"_chain_kernel on {target}: the trips of `while position != 0:`")
    assert "declare them in benchmarks/audit/budgets.toml" in message


@pytest.mark.parametrize("target", TARGETS)
def test_lines_add_up(known: dict[str, Any], target: str) -> None:
    lines = rows_of(known, target)["nested"]["lines"].splitlines()
    assert any("for a in range(0, OUTER):" in line for line in lines)
    assert any("sums += tl.load(x_ptr + (a * INNER + b) * BLOCK + i)" in line for line in lines)


def test_every_kernel_keeps_its_budgets(audit: dict[str, Any]) -> None:
    assert not audit["problems"], "\n".join(audit["problems"])
    kernels = {binary["kernel"] for binary in audit["binaries"]}
    assert len(kernels) >= 5
    compiled = {(binary["kernel"], binary["target"]) for binary in audit["binaries"]}
    assert compiled == {(kernel, target) for kernel in kernels for target in TARGETS}


def test_matrix_units_score_on_every_target(audit: dict[str, Any]) -> None:
    named = [binary for binary in audit["binaries"] if "lmn_1m:bf16" in binary["cases"]]
    scoring = {binary["target"] for binary in named if binary["tensor_opcodes"]}
    assert scoring == set(TARGETS)


def test_reads_nvidia_figures_by_width() -> None:
    text = """
     Function _k:
      REG:64 STACK:24 SHARED:1024 LOCAL:0 CONSTANT[0]:568 TEXTURE:0
            /*0010*/    STL [R1], R7 ;
            /*0020*/    STL.64 [R1+0x8], R8 ;
            /*0030*/    @!P0 LDL.LU.64 R46, [R1] ;
            /*0040*/    LDL.U8 R47, [R1] ;
    """
    assert nvidia_usage(text, "_k") == (64, 3, 0, 12 + 9, 24, 1024)
    with pytest.raises(ValueError, match="no resource usage of _other"):
        nvidia_usage(text, "_other")


def test_reads_amd_figures_by_width() -> None:
    text = """
\tscratch_store_dwordx4 off, v[2:5], off offset:16 ; 16-byte Folded Spill
\tscratch_load_dword v2, off, off
\tscratch_load_ushort v2, off, off
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 36
    .sgpr_spill_count: 2
    .vgpr_count:     512
    .vgpr_spill_count: 4
"""
    assert amd_usage(text) == (512, 4, 6, 16 + 4 + 2, 36, 0)
    with pytest.raises(ValueError, match=r"must hold \.vgpr_count once, got 2"):
        amd_usage(text + text)


def test_too_much_memory_is_a_problem() -> None:
    fits: dict[str, Any] = {
        "kernel": "_k",
        "config": "",
        "key": "",
        "num_warps": 4,
        "threads": 128,
        "registers": 40,
        "assembly": "",
        "instructions": [],
    }
    fits |= dict.fromkeys(("spilled_registers", "parked_registers", "spill_bytes"), 0) | dict.fromkeys(
        ("stack_bytes", "static_shared_bytes"), 0
    )
    hopper = CompiledKernel(target="sm_90", dynamic_shared_bytes=100_000, tensor_memory_columns=0, **fits)
    assert hopper.problems() == []
    amd = CompiledKernel(target="gfx942", dynamic_shared_bytes=100_000, tensor_memory_columns=0, **fits)
    assert amd.problems() == ["needs 100000 bytes of shared memory, gfx942 has 65536"]
    blackwell = CompiledKernel(target="sm_100", dynamic_shared_bytes=0, tensor_memory_columns=1024, **fits)
    assert blackwell.problems() == ["needs 1024 columns of tensor memory, sm_100 has 512"]


def test_unknown_target_is_an_error() -> None:
    with pytest.raises(ValueError, match="target must be one of sm_80, sm_90, sm_100, gfx942, got 'sm_1'"):
        compile_launch(Launch(None, (1,), (), {}), "sm_1")


def test_interpreted_kernel_is_an_error() -> None:
    def interpreted() -> None: ...

    with pytest.raises(RuntimeError, match="must be a JITFunction, got function; unset TRITON_INTERPRET"):
        compile_launch(Launch(interpreted, (1,), (), {}), "sm_90")


@pytest.mark.parametrize(
    "case", ["lmn_1m", "lmn_1m:int8", "huge:bf16", "lmn_1m:bf16:l3", "lmn_1m:bf16:l2:tanh", "lmn_1m:bf16:l2:relu:x"]
)
def test_unknown_case_is_an_error(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--case", case])
    assert "--case must be SHAPE:DTYPE[:METRIC[:ACTIVATION]], of ctr_64k, lmn_1m" in capsys.readouterr().err
