"""The kernels' machine code, compiled for GPUs that need not be here: nothing spills, everything fits.

The compiler runs in programs of its own, because this session interprets the kernels (``TRITON_INTERPRET=1``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

from benchmarks.machine_code import amd_usage, nvidia_usage
from benchmarks.offline import TARGETS, CompiledKernel, compile_launch, main
from lmn_kernels.launch import Launch

pytestmark = pytest.mark.offline_compile

Rows = list[dict[str, Any]]


def run_without_interpreter(*arguments: str) -> Any:
    """The JSON that ``python -m`` prints; exit status 1 says that the audit found something."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", *arguments]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def known() -> Rows:
    rows: Rows = run_without_interpreter("tests.offline_known_kernels")
    return rows


@pytest.fixture(scope="module")
def audit() -> dict[str, Any]:
    report: dict[str, Any] = run_without_interpreter("benchmarks.offline", "--json")
    return report


@pytest.mark.parametrize("target", TARGETS)
def test_small_kernel_is_clean_and_large_one_is_caught(known: Rows, target: str) -> None:
    rows = {row["case"]: row for row in known if row["target"] == target}
    assert 0 < rows["aligned"]["registers"] <= 64
    assert rows["aligned"]["problems"] == []
    for figure in ("spilled_registers", "spill_bytes", "stack_bytes"):
        assert rows["aligned"][figure] == 0
        assert rows["spilling"][figure] > 0
    assert "spills" in rows["spilling"]["problems"][0]
    assert rows["spilling"]["threads"] == TARGETS[target].gpu.warp_size


@pytest.mark.parametrize("target", TARGETS)
def test_arguments_are_specialised_by_alignment(known: Rows, target: str) -> None:
    wide = {row["case"]: row["wide_loads"] for row in known if row["target"] == target}
    assert wide["aligned"]
    assert not wide["misaligned"]


def test_every_kernel_is_compiled_for_every_target(audit: dict[str, Any]) -> None:
    compiled = {(row["kernel"], row["target"]) for row in audit["rows"]}
    assert compiled == {(kernel, target) for kernel in audit["kernels"] for target in TARGETS}
    assert len(audit["kernels"]) >= 5


@pytest.mark.parametrize("target", TARGETS)
def test_no_kernel_spills_and_all_fit(audit: dict[str, Any], target: str) -> None:
    offenders = [
        f"{row['case']} {row['kernel']} ({row['config']}), {row['registers']} registers: {'; '.join(row['problems'])}"
        for row in audit["rows"]
        if row["target"] == target and row["problems"]
    ]
    assert not offenders, "\n".join(offenders)


def test_reads_nvidia_figures_by_width() -> None:
    text = """
     Function _k:
      REG:64 STACK:24 SHARED:1024 LOCAL:0 CONSTANT[0]:568 TEXTURE:0
            /*0010*/    STL [R1], R7 ;
            /*0020*/    STL.64 [R1+0x8], R8 ;
            /*0030*/    @!P0 LDL.LU.64 R46, [R1] ;
            /*0040*/    LDL.U8 R47, [R1] ;
    """
    assert nvidia_usage(text, "_k") == (64, 3, 12 + 9, 24, 1024)
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
    assert amd_usage(text) == (512, 6, 16 + 4 + 2, 36, 0)
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
    fits |= dict.fromkeys(("spilled_registers", "spill_bytes", "stack_bytes", "static_shared_bytes"), 0)
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
