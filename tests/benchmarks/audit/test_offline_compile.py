"""The kernels' machine code, compiled for GPUs that need not be here: nothing spills, everything fits, budgets hold.

The compiler runs in processes of its own, because this session interprets the kernels (``TRITON_INTERPRET=1``).
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
from benchmarks.audit.offline import TARGETS, compile_launch
from lmn_kernels.launch import Launch

pytestmark = pytest.mark.offline_compile


def run_without_interpreter(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m`` with these arguments."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(
    scope="module",
    params=[target if target == "sm_90" else pytest.param(target, marks=pytest.mark.slow) for target in TARGETS],
)
def known(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """Figures of the kernels of ``offline_known_kernels.py`` on a target, by case."""
    done = run_without_interpreter("tests.helpers.offline_known_kernels", request.param)
    assert done.returncode == 0, done.stderr
    figures: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return figures


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("audit") / "audit.json"
    done = run_without_interpreter("benchmarks.audit", "--out", str(path))
    assert path.exists(), done.stderr
    report: dict[str, Any] = json.loads(path.read_text())
    assert done.returncode == (1 if report["problems"] else 0), done.stderr
    return report


def test_small_kernel_is_clean_and_large_one_is_caught(known: dict[str, Any]) -> None:
    assert 0 < known["aligned"]["registers"] <= 64
    assert known["aligned"]["problems"] == []
    for figure in ("spilled_registers", "spill_bytes", "stack_bytes"):
        assert known["aligned"][figure] == 0
        assert known["spilling"][figure] > 0
    assert "spills" in known["spilling"]["problems"][0]
    spilling = known["spilling"]
    assert spilling["threads"] == TARGETS[spilling["target"]].gpu.warp_size


def test_arguments_are_specialised_by_alignment(known: dict[str, Any]) -> None:
    assert known["aligned"]["widest_load_bytes"] == 16
    assert known["misaligned"]["widest_load_bytes"] == 4


def test_instructions_count_once_each(known: dict[str, Any]) -> None:
    """Loads count as written: each of an unrolled loop, and those of a loop's body once however often it runs."""
    assert known["unrolled"]["loads"] == {"4": 50}
    assert sum(known["looped"]["loads"].values()) < 50
    assert known["looped"]["instructions"] < known["unrolled"]["instructions"]


@pytest.mark.slow
def test_every_kernel_keeps_its_budgets(audit: dict[str, Any]) -> None:
    assert not audit["problems"], "\n".join(audit["problems"])
    kernels = {binary["kernel"] for binary in audit["binaries"]}
    assert len(kernels) >= 5
    compiled = {(binary["kernel"], binary["target"]) for binary in audit["binaries"]}
    assert compiled == {(kernel, target) for kernel in kernels for target in TARGETS}


@pytest.mark.slow
def test_matrix_units_score_on_every_target(audit: dict[str, Any]) -> None:
    named = [binary for binary in audit["binaries"] if "lmn_1m:bf16" in binary["cases"]]
    scoring = {binary["target"] for binary in named if binary["tensor_opcodes"]}
    assert scoring == set(TARGETS)


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
