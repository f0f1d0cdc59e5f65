"""Profile a training read: a table of its kernels, and the hardware counters of the slowest one.

Torch's profiler gives the table. The counters are Nsight Compute's, if ``ncu`` is on the PATH; clocks are left alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.kernels.graphs import gpu_events
from benchmarks.kernels.measure import Session
from benchmarks.kernels.problems import Case, make_problems
from benchmarks.kernels.providers import all_providers
from benchmarks.kernels.shapes import SHAPES
from benchmarks.result_files import ROOT

CALLS = 5
TOP = 20


def profile_kernels(session: Session, case: Case, folder: Path) -> str | None:
    """Write ``profile.txt``, add the slowest kernels to ``profile``; the name of the slowest, None on a CPU."""
    call = _training_read(case, session.device)
    for _ in range(2):
        call()
    on_gpu = session.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(CALLS):
            call()
        if on_gpu:
            torch.cuda.synchronize(session.device)
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    averages = profiler.key_averages()
    folder.mkdir(parents=True, exist_ok=True)
    table = averages.table(sort_by=key, row_limit=40, max_name_column_width=80)
    (folder / "profile.txt").write_text(f"{case}, {CALLS} calls of forward + backward\n{table}\n", encoding="utf-8")
    kernels = gpu_events(averages) if on_gpu else list(averages)
    kernels.sort(key=lambda event: getattr(event, key), reverse=True)
    total = sum(getattr(event, key) for event in kernels) or 1
    for event in kernels[:TOP]:
        took = getattr(event, key)
        record: dict[str, Any] = {
            "kernel": event.key,
            "us_a_call": round(took / CALLS, 3),
            "launches_a_call": event.count / CALLS,
            "share": round(took / total, 4),
        }
        session.file.add("profile", record)
    return next((event.key for event in kernels if on_gpu and not event.key.startswith("Mem")), None)


def profile_counters(session: Session, case: Case, kernel: str, folder: Path, timeout_s: float) -> None:
    """Write ``ncu.txt`` with the full counters of one launch of ``kernel``, or record why not."""
    what = f"hardware counters of {kernel}"
    if shutil.which("ncu") is None:
        session.file.skip(what, "ncu is not on the PATH")
        return
    shape = case.shape
    child = [sys.executable, "-m", "benchmarks.kernels.profiling", shape.name, case.dtype, case.slots]
    command = ["ncu", "--clock-control", "none", "--set", "full", "--kernel-name-base", "function"]
    command += ["--kernel-name", function_name(kernel)]
    command += ["--launch-skip", "1", "--launch-count", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([*command, *child], cwd=ROOT, start_new_session=True, **pipes) as ncu:
        try:
            output, _ = ncu.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(ncu.pid, signal.SIGKILL)  # the profiled program too, or it would keep the GPU busy
            session.file.skip(what, f"ncu took more than {timeout_s:.0f} s")
            return
    (folder / "ncu.txt").write_text(output, encoding="utf-8")
    if ncu.returncode:
        session.file.skip(what, f"ncu ended with {ncu.returncode}; see ncu.txt")


def function_name(kernel: str) -> str:
    """The bare name of a kernel in Nsight Compute.

    >>> function_name("void at::native::(anonymous namespace)::reduce<float>(int)"), function_name("_axis_kernel")
    ('reduce', '_axis_kernel')
    """
    bare = kernel.replace("(anonymous namespace)::", "").partition("<")[0].partition("(")[0]
    return bare.split("::")[-1].split(" ")[-1]


def _training_read(case: Case, device: torch.device) -> Callable[[], object]:
    problem = make_problems(case, 1, device)[0]
    return all_providers()["lmn"].ops[case.op](problem).both


def main() -> None:
    """Run the training read that ``ncu`` profiles: ``python -m benchmarks.kernels.profiling SHAPE DTYPE SLOTS``."""
    shape, dtype, slots = sys.argv[1:]
    call = _training_read(Case("layer", SHAPES[shape], dtype, slots), torch.device("cuda"))
    for _ in range(3):
        call()
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
