"""Compile Triton kernels for GPUs that this machine does not have.

A kernel that spills is still correct, so no numerical test finds it: only the machine code shows it. A launch is
specialised as at run time because Triton's own ``JITFunction.warmup`` binds its arguments; only the driver, which
names the GPU that is present, is replaced. Meta tensors stand for fresh allocations: their address is 0, a multiple of
16, and a view is as aligned as its offset.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, NoReturn

from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from benchmarks.audit.occupancy import occupancy
from benchmarks.audit.opcodes import amd_opcodes, global_loads, nvidia_opcodes, tensor_opcodes, widest_load
from benchmarks.audit.usage import Usage, amd_usage, disassemble, nvidia_usage
from lmn_kernels.launch import Launch


class Target(NamedTuple):
    """A GPU to compile for and the maximum of shared memory of one block on it, in bytes."""

    gpu: GPUTarget
    max_shared_bytes: int


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 163 * 1024),
    "sm_90": Target(GPUTarget("cuda", 90, 32), 227 * 1024),
    "sm_100": Target(GPUTarget("cuda", 100, 32), 227 * 1024),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 64 * 1024),
}
MAX_TENSOR_MEMORY_COLUMNS = 512
_current_target: ContextVar[GPUTarget] = ContextVar("offline_target")


@dataclass(frozen=True)
class Binary:
    """One kernel, compiled for one target in one configuration.

    Attributes:
        config: constexprs and options of the launch.
        key: Triton's content hash; equal keys are the same binary.
        threads: of a block.
        registers: 32-bit vector registers of a thread.
        spilled_registers, parked_registers, spill_bytes, stack_bytes, static_shared_bytes: see :class:`Usage`.
        shared_bytes: dynamic, of a block.
        tensor_memory_columns: of a block, on Blackwell.
        resident_warps, max_warps, limited_by: see :class:`~benchmarks.audit.occupancy.Occupancy`.
        instructions: machine instructions in the code, each once; padding is none.
        loads: load instructions from global memory by bytes a thread.
        widest_load_bytes: the widest of them; a copy by the copy engine counts as 16; 0 without loads.
        tensor_opcodes: matrix instructions present.
        cases: the cases of the audit that launch it.
    """

    kernel: str
    target: str
    config: str
    key: str
    threads: int
    registers: int
    spilled_registers: int
    parked_registers: int
    spill_bytes: int
    stack_bytes: int
    static_shared_bytes: int
    shared_bytes: int
    tensor_memory_columns: int
    resident_warps: int
    max_warps: int
    limited_by: str
    instructions: int
    loads: dict[str, int]
    widest_load_bytes: int
    tensor_opcodes: list[str]
    cases: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """Why this binary is not acceptable; empty if it neither spills nor needs more than the target has."""
        found = []
        if self.spilled_registers or self.spill_bytes or self.stack_bytes:
            found.append(
                f"spills {self.spilled_registers} registers, {self.spill_bytes} bytes, stack {self.stack_bytes} bytes"
            )
        available = TARGETS[self.target].max_shared_bytes
        if self.shared_bytes > available:
            found.append(f"needs {self.shared_bytes} bytes of shared memory, {self.target} has {available}")
        columns = self.tensor_memory_columns
        if columns > MAX_TENSOR_MEMORY_COLUMNS:
            found.append(f"needs {columns} columns of tensor memory, {self.target} has {MAX_TENSOR_MEMORY_COLUMNS}")
        return found

    def __str__(self) -> str:
        return f"{self.kernel} {self.cases[0] if self.cases else ''} {self.target} ({self.config})"


def compile_launch(launch: Launch, target: str) -> Binary:
    """Compile ``launch`` for ``target`` as a launch there would, and read its figures.

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
    usage, opcodes = _read(compiled)
    warps, shared_bytes = compiled.metadata.num_warps, compiled.metadata.shared
    loads = global_loads(opcodes)
    return Binary(
        kernel=name,
        target=target,
        config=config,
        key=compiled.hash,
        threads=warps * TARGETS[target].gpu.warp_size,
        shared_bytes=shared_bytes,
        tensor_memory_columns=getattr(compiled.metadata, "tmem_size", None) or 0,
        instructions=len(opcodes),
        loads=loads,
        widest_load_bytes=widest_load(loads),
        tensor_opcodes=tensor_opcodes(opcodes),
        **usage._asdict(),
        **occupancy(target, warps, usage.registers, shared_bytes)._asdict(),
    )


@cache  # Triton hands out one object for each binary of a process
def _read(compiled: Any) -> tuple[Usage, list[str]]:
    if "cubin" not in compiled.asm:
        assembly = compiled.asm["amdgcn"]
        return amd_usage(assembly), amd_opcodes(assembly)
    disassembly = disassemble(compiled.asm["cubin"])
    return nvidia_usage(disassembly, compiled.metadata.name), nvidia_opcodes(disassembly)


class _OfflineDriver:
    """The part of a driver that ``JITFunction.warmup`` calls, for the target being compiled."""

    def get_current_target(self) -> GPUTarget:
        return _current_target.get()

    def get_current_device(self) -> GPUTarget:
        return _current_target.get()  # only a key of the kernel's cache

    def get_current_stream(self, device: GPUTarget) -> int:
        return 0

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"this process compiles offline and cannot launch kernels: its driver has no {name}")
