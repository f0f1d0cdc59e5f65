"""Compile the Triton kernels for GPUs that this machine does not have, and read what each one costs.

``python -m benchmarks.offline`` collects the launches that the ops make at realistic shapes, compiles each for every
target and prints registers, spills and shared memory; it exits with 1 if a kernel spills or does not fit. A kernel that
spills is still correct, so no numerical test finds it: only the machine code does.

A launch is specialised as at run time because Triton's own ``JITFunction.warmup`` binds its arguments; all that is
replaced is the driver that says which GPU is present. Meta tensors stand for fresh allocations: their address is 0, a
multiple of 16, and a view is as aligned as its offset.

How each figure is read: ``machine_code.py``; dynamic shared memory, warps and tensor memory are Triton's metadata.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from lmn_kernels.activation import ACTIVATIONS
from lmn_kernels.launch import Launch
from lmn_kernels.product_key_topk.metric import METRICS

from .instructions import Instruction, parse_amd, parse_sass
from .launches import collect_launches, kernel_names
from .machine_code import amd_usage, disassemble, nvidia_usage
from .shapes import SHAPES, Shape


class Target(NamedTuple):
    """A GPU to compile for and the most shared memory one block may use on it, in bytes."""

    gpu: GPUTarget
    shared_limit: int


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 163 * 1024),
    "sm_90": Target(GPUTarget("cuda", 90, 32), 227 * 1024),
    "sm_100": Target(GPUTarget("cuda", 100, 32), 227 * 1024),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 64 * 1024),
}
TENSOR_MEMORY_LIMIT = 512
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp64": torch.float64}
AUDIT_CASES = (
    "lmn_1m:bf16",
    "wide_1m:bf16",
    "ctr_64k:fp32",
    "ctr_64k:fp64",
    "lmn_1m:fp16:cosine:sigmoid",
    "ctr_64k:bf16:l2:relu",
    "ctr_64k:fp64:cosine",
    "ctr_64k:fp64:l2",
    "odd:fp32:l2",
    "many_slots:bf16",
)

_current_target: ContextVar[GPUTarget] = ContextVar("offline_target")


@dataclass(frozen=True)
class CompiledKernel:
    """One kernel, compiled for one target in one configuration.

    Registers, spills and stack are for each thread; the others for each block. ``key`` is Triton's content hash: equal
    keys are the same binary.
    """

    kernel: str
    target: str
    config: str
    key: str
    num_warps: int
    threads: int
    registers: int
    spilled_registers: int
    spill_bytes: int
    stack_bytes: int
    static_shared_bytes: int
    dynamic_shared_bytes: int
    tensor_memory_columns: int
    assembly: str = field(repr=False)
    instructions: list[Instruction] = field(repr=False)

    def problems(self) -> list[str]:
        """Why this binary is not acceptable; empty if it neither spills nor asks for more than the target has."""
        found = []
        if self.spilled_registers or self.spill_bytes or self.stack_bytes:
            found.append(
                f"spills {self.spilled_registers} registers, {self.spill_bytes} bytes, stack {self.stack_bytes} bytes"
            )
        shared, limit = self.dynamic_shared_bytes, TARGETS[self.target].shared_limit
        if shared > limit:
            found.append(f"needs {shared} bytes of shared memory, {self.target} has {limit}")
        columns = self.tensor_memory_columns
        if columns > TENSOR_MEMORY_LIMIT:
            found.append(f"needs {columns} columns of tensor memory, {self.target} has {TENSOR_MEMORY_LIMIT}")
        return found


def compile_launch(launch: Launch, target: str) -> CompiledKernel:
    """Compile ``launch`` for ``target`` as a launch there would, and read its resource usage.

    The process compiles offline from then on: it can no longer launch kernels, even if it has a GPU.

    Args:
        launch: a recorded launch; its tensors may be meta tensors.
        target: a key of :data:`TARGETS`.

    Raises:
        ValueError: ``target`` is unknown.
        RuntimeError: the kernel was made by the interpreter, or it does not compile.
    """
    if target not in TARGETS:
        raise ValueError(f"compile_launch: target must be one of {', '.join(TARGETS)}, got {target!r}")
    name, config = launch.kernel.__name__, ", ".join(f"{key}={value}" for key, value in launch.meta.items())
    if not isinstance(launch.kernel, JITFunction):
        raise RuntimeError(
            f"compile_launch: {name} must be a JITFunction, got {type(launch.kernel).__name__}; "
            "unset TRITON_INTERPRET before the module that holds the kernel is imported"
        )
    driver.set_active(_OfflineDriver())
    token = _current_target.set(TARGETS[target].gpu)
    try:
        compiled = launch.kernel.warmup(*launch.args, grid=launch.grid, **launch.meta)
    except Exception as error:
        raise RuntimeError(f"compile_launch: {name} does not compile for {target} with {config}: {error}") from error
    finally:
        _current_target.reset(token)
    if "cubin" in compiled.asm:
        assembly = disassemble(compiled.asm["cubin"])
        usage = nvidia_usage(assembly, compiled.metadata.name)
        instructions = parse_sass(assembly, compiled.asm["ptx"], compiled.metadata.name)
    else:
        assembly = compiled.asm["amdgcn"]
        usage = amd_usage(assembly)
        instructions = parse_amd(assembly)
    return CompiledKernel(
        kernel=name,
        target=target,
        config=config,
        key=compiled.hash,
        num_warps=compiled.metadata.num_warps,
        threads=compiled.metadata.num_warps * TARGETS[target].gpu.warp_size,
        dynamic_shared_bytes=compiled.metadata.shared,
        tensor_memory_columns=getattr(compiled.metadata, "tmem_size", None) or 0,
        assembly=assembly,
        instructions=instructions,
        **usage._asdict(),
    )


def compile_cases(
    cases: Sequence[str], targets: Sequence[str], workers: int | None = None
) -> list[tuple[str, CompiledKernel]]:
    """Compile every launch of ``cases`` for ``targets``; a binary that several launches share counts once.

    A case is ``SHAPE:DTYPE[:METRIC[:ACTIVATION]]``, with ``dot`` and ``softmax`` where nothing is said.

    Each target is compiled in a process and with a cache of its own. Threads that compile for several targets at once
    were seen to translate the same LLVM code to other PTX (128 registers and a spill where a target alone gives 96 and
    none), and Triton's shared cache keeps such a result.
    """
    workers = workers or min(len(targets), len(os.sched_getaffinity(0)))
    with get_context("spawn").Pool(workers, maxtasksperchild=1) as pool:
        of_targets = pool.map(partial(_compile_target, cases), targets, chunksize=1)
    return [row for rows in of_targets for row in rows]


def _compile_target(cases: Sequence[str], target: str) -> list[tuple[str, CompiledKernel]]:
    unique = {}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for case in cases:
            for launch in collect_launches(*parse_case(case)):
                compiled = compile_launch(launch, target)
                unique.setdefault(compiled.key, (case, compiled))
    return list(unique.values())


def parse_case(case: str) -> tuple[Shape, torch.dtype, str, str]:
    """Shape, type, metric and activation of a case.

    Raises:
        ValueError: a part is unknown or one too many.
    """
    parts = dict(zip_longest(("shape", "dtype", "metric", "activation"), case.split(":")))
    choices = {"shape": SHAPES, "dtype": DTYPES, "metric": METRICS, "activation": ACTIVATIONS}
    metric, activation = parts.get("metric") or "dot", parts.get("activation") or "softmax"
    for name, value in {**parts, "metric": metric, "activation": activation}.items():
        if name not in choices or value not in choices[name]:
            raise ValueError(
                f"--case must be SHAPE:DTYPE[:METRIC[:ACTIVATION]], of {', '.join(SHAPES)}; {', '.join(DTYPES)}; "
                f"{', '.join(METRICS)}; {', '.join(ACTIVATIONS)}; got {case}"
            )
    return SHAPES[parts["shape"]], DTYPES[parts["dtype"]], metric, activation


def format_table(rows: Sequence[tuple[str, CompiledKernel]]) -> str:
    """A text table, one line a binary, problems last."""
    header = f"{'case':27} {'kernel':44} {'target':7} {'warps':>5} {'regs':>5} {'spill B':>7} {'shared B':>8}  problems"
    lines = [
        f"{label:27} {row.kernel:44} {row.target:7} {row.num_warps:5} {row.registers:5} {row.spill_bytes:7} "
        f"{row.dynamic_shared_bytes:8}  {'; '.join(row.problems())}".rstrip()
        for label, row in rows
    ]
    return "\n".join([header, *lines])


def as_record(label: str, row: CompiledKernel) -> dict[str, Any]:
    """A row for JSON: every figure and the problems, without the assembly."""
    record = {"case": label, **asdict(row), "problems": row.problems()}
    del record["assembly"], record["instructions"]
    return record


class _OfflineDriver:
    """What ``JITFunction.warmup`` asks of a driver, answered for the target being compiled."""

    def get_current_target(self) -> GPUTarget:
        return _current_target.get()

    def get_current_device(self) -> GPUTarget:
        return _current_target.get()  # only a key of the kernel's cache

    def get_current_stream(self, device: GPUTarget) -> int:
        return 0

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"this process compiles offline and cannot launch kernels: its driver has no {name}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit the kernels of ``lmn_kernels``; see the head of this module. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offline", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--case",
        action="append",
        metavar="SHAPE:DTYPE[:METRIC[:ACTIVATION]]",
        help=f"may repeat; default: {' '.join(AUDIT_CASES)}",
    )
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="may repeat; default: all")
    parser.add_argument("--workers", type=int, help="processes; default: one a target, as far as there are cores")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON instead of a table")
    parser.add_argument("--assembly", type=Path, metavar="FOLDER", help="also write the machine code of each binary")
    options = parser.parse_args(arguments)
    cases = options.case or AUDIT_CASES
    for case in cases:
        try:
            parse_case(case)
        except ValueError as error:
            parser.error(str(error))
    rows = compile_cases(cases, options.target or tuple(TARGETS), options.workers)
    if options.json:
        records = [as_record(label, row) for label, row in rows]
        print(json.dumps({"triton": triton.__version__, "kernels": kernel_names(), "rows": records}, indent=1))
    else:
        print(format_table(rows))
    if options.assembly:
        options.assembly.mkdir(parents=True, exist_ok=True)
        for label, row in rows:
            name = f"{row.kernel}-{label.replace(':', '-')}-{row.target}-{row.key[:8]}.asm"
            (options.assembly / name).write_text(row.assembly)
    return int(any(row.problems() for _, row in rows))


if __name__ == "__main__":
    sys.exit(main())
