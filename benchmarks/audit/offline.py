"""Compile Triton kernels for GPUs that this machine does not have.

A kernel that spills is still correct, so no numerical test finds it: only the machine code does. A launch is
specialised as at run time because Triton's own ``JITFunction.warmup`` binds its arguments; all that is replaced is the
driver that says which GPU is present. Meta tensors stand for fresh allocations: their address is 0, a multiple of 16,
and a view is as aligned as its offset.

How each figure is read: ``usage.py``; dynamic shared memory, warps and tensor memory are Triton's metadata.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, NoReturn

from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from benchmarks.audit.machine.instructions import Instruction, parse_amd, parse_sass
from benchmarks.audit.usage import Usage, amd_usage, disassemble, nvidia_usage
from lmn_kernels.launch import Launch


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
    parked_registers: int
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
    assembly, usage, instructions = _read(compiled)
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


@cache  # Triton hands out one object for each binary of a process
def _read(compiled: Any) -> tuple[str, Usage, list[Instruction]]:
    if "cubin" not in compiled.asm:
        assembly = compiled.asm["amdgcn"]
        return assembly, amd_usage(assembly), parse_amd(assembly)
    assembly, name = disassemble(compiled.asm["cubin"]), compiled.metadata.name
    return assembly, nvidia_usage(assembly, name), parse_sass(assembly, compiled.asm["ptx"], name)


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
