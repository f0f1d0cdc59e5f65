"""The global state of the process while a run trains: seed, threads and deterministic ops.

All of it is put back afterwards, so that training as a library call leaves the caller's process as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible(seed: int, threads: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch, set its CPU threads and, on the CPU, allow deterministic ops only.

    Sums on several threads are split by the number of threads, so equal results to the last digit need an equal number.

    Args:
        seed: of torch's generators.
        threads: CPU threads within an op; None keeps torch's choice, all cores.
        device: where the model runs.
    """
    devices = [device] if device.type == "cuda" else []
    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        if threads is not None:
            torch.set_num_threads(threads)
        if device.type == "cpu":
            torch.use_deterministic_algorithms(True)
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[assignment]
        try:
            yield
        finally:
            torch.set_num_threads(before)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[assignment]
