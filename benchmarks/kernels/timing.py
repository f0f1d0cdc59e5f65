"""Time calls in turns, with cold caches, as percentiles.

On a GPU a call is timed by events on its stream. Before each, a buffer larger than any cache is written twice: that
empties the L2 cache, and while it runs (some 0.5 ms) the host queues the call, so that launch latency shows only where
a call keeps the host busy for longer than that. On a CPU a buffer of twice the usual L3 cache is written, then the
clock runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

FLUSH_BYTES = {"cuda": 1 << 30, "cpu": 64 << 20}
PERCENTILES = (20, 50, 80)

Call = Callable[[], object]


@dataclass(frozen=True)
class Effort:
    """How long to measure: seconds of warm-up and of timing for each call, and bounds of the number of rounds."""

    warmup_s: float = 0.2
    budget_s: float = 1.0
    min_rounds: int = 5
    max_rounds: int = 100


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Torch computes on ``count`` threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Stopwatch:
    """Times single calls on one device, each with cold caches."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._flush = torch.empty(FLUSH_BYTES[self.device.type], dtype=torch.int8, device=self.device)

    def cool(self) -> None:
        """Empty the caches; on a GPU, without waiting for it."""
        for value in (1, 0):
            self._flush.fill_(value)
            if self.device.type == "cpu":
                break

    def seconds(self, call: Call) -> float:
        """Time of one ``call``."""
        if self.device.type == "cpu":
            self.cool()
            start = time.perf_counter()
            kept = call()
            seconds = time.perf_counter() - start
            del kept  # returning memory to the system is not part of the call
            return seconds
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(self.device)
        self.cool()
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def time_in_turns(
    calls: Mapping[str, Callable[[int], Call]], stopwatch: Stopwatch, effort: Effort
) -> dict[str, list[float]]:
    """Seconds of every round of each call.

    Args:
        calls: by name, a function that makes the call of a round outside the clock: it chooses inputs, builds a graph.
        stopwatch: of the device.
        effort: a call that has used up its budget and has its minimum of rounds is timed no more.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for make in calls.values():
        start = time.perf_counter()
        warm = 0
        while warm < 1 or time.perf_counter() - start < effort.warmup_s:
            stopwatch.seconds(make(warm))
            warm += 1
    spent = dict.fromkeys(calls, 0.0)
    active = list(calls)
    turn = 0
    while active:
        for name in active[turn % len(active) :] + active[: turn % len(active)]:  # the order rotates
            start = time.perf_counter()
            times[name].append(stopwatch.seconds(calls[name](turn)))
            spent[name] += time.perf_counter() - start
        turn += 1
        active = [
            name
            for name in active
            if turn < effort.max_rounds and (turn < effort.min_rounds or spent[name] < effort.budget_s)
        ]
    return times


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """20th, 50th and 80th percentile in milliseconds, between neighbours by linear interpolation.

    >>> percentiles([0.001, 0.002, 0.003, 0.004, 0.005, 0.006])
    {'p20_ms': 2.0, 'p50_ms': 3.5, 'p80_ms': 5.0}

    Raises:
        ValueError: there are no times.
    """
    if not len(seconds):
        raise ValueError("percentiles: seconds must hold at least one time")
    found = np.percentile(np.asarray(seconds, dtype=np.float64) * 1e3, PERCENTILES)
    return {f"p{rank}_ms": round(float(value), 6) for rank, value in zip(PERCENTILES, found, strict=True)}
