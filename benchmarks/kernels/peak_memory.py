"""Peak memory of a call beyond what lived before it: outputs, gradients and everything in between, not the inputs.

On a GPU it is the allocator's own high-water mark. On a CPU, where tensors come from malloc and pages are kept, every
allocation of a tensor is taken from torch's profiler and summed in the order of time; the high-water mark of NumPy's
arrays, which tracemalloc sees, is added as if both came at one moment, so the sum may be too high, never too low.
Buffers that a library allocates for itself are not seen; memory that this library kept from earlier calls is given back
first, so that it counts.
"""

from __future__ import annotations

import json
import re
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from lmn_kernels import empty_cache


def peak_bytes(call: Callable[[], object], device: torch.device | str) -> int:
    """The most bytes of tensors and arrays that ``call`` holds at one time, its result included."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    empty_cache()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        tracemalloc.start()
        kept = call()
        _, arrays = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    del kept
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak + arrays


def peak_resident_bytes() -> int:
    """The most bytes this program has held, Python and torch included; Linux.

    ``getrusage`` would not do: it counts what the process held before it became this program, as a copy of its parent.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    if found is None:
        raise RuntimeError("/proc/self/status: has no VmHWM, so the peak of resident memory is not known")
    return int(found[1]) * 1024
