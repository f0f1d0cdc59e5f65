"""Launch of a Triton kernel: every launcher goes through :func:`launch`.

It counts launches, so that a test can prove that a kernel ran and a benchmark can report how many launches an op costs.
It can record them instead of running them, so that the offline audit compiles each kernel with exactly the arguments
and the configuration that the launchers choose. It does not import Triton.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch


class Launch(NamedTuple):
    """One kernel launch: the jitted function, its grid, its runtime arguments in order, and constexprs plus options."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    meta: dict[str, Any]


class _Recorder(NamedTuple):
    launches: list[Launch]
    amd: bool


launch_counts: Counter[str] = Counter()
_recorders: list[_Recorder] = []


def ceil_div(a: int, b: int) -> int:
    """``a / b`` rounded up; Triton's own ``cdiv`` also works in kernels, and takes microseconds on the host."""
    return -(-a // b)


def power_of_two(size: int) -> int:
    """The lowest power of two that is at least ``size``, and at least 1."""
    return 1 << max(size - 1, 0).bit_length()


def for_amd() -> bool:
    """Whether launches go to an AMD GPU, or are recorded for one: its wavefronts have 64 threads, not 32."""
    return _recorders[-1].amd if _recorders else torch.version.hip is not None


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **meta: Any) -> None:
    """Launch ``kernel`` on ``grid``, or hand the launch to the innermost active recorder.

    ``args`` are the runtime arguments in order, a tensor first; ``meta`` the constexprs and options.
    """
    if _recorders:
        _recorders[-1].launches.append(Launch(kernel, grid, args, meta))
        return
    launch_counts[kernel.__name__] += 1
    device = args[0].device
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        kernel[grid](*args, **meta)
        return
    with torch.cuda.device(device):  # Triton launches on the current device
        kernel[grid](*args, **meta)


@contextmanager
def record_launches(*, amd: bool = False) -> Iterator[list[Launch]]:
    """Record launches, as they would be on an NVIDIA or an ``amd`` GPU, instead of running them.

    Outputs stay unwritten, so meta tensors will do.

    >>> with record_launches() as launches:
    ...     pass
    >>> launches
    []
    """
    recorder = _Recorder([], amd)
    _recorders.append(recorder)
    try:
        yield recorder.launches
    finally:
        _recorders.pop()
