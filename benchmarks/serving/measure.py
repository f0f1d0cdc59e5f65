"""Time the calls of models in turns, and record p50 and p99 of every point."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.serving.figure import ENOUGH
from benchmarks.serving.models import FEATURES, FOUND, GROWN, MODELS, Request, make_model, settings_of
from lmn_model.ctr.model import CTRModel
from lmn_model.data import Batch

CANDIDATES = (1, 8, 32, 128, 512)
SUB_KEYS = 1024
GROWN_CANDIDATES = 128
WARM_UP = 2
"""Calls at the start of a block that are not counted."""


@dataclass(frozen=True)
class Effort:
    """How long to measure a point, and how large the memories are.

    Attributes:
        calls: maximum of calls.
        seconds: of wall time, after which no call begins once there were ``enough``.
        enough: calls that a p99 needs.
        longest: seconds of wall time after which no call begins in any case.
        blocks: in which the models take turns.
        sub_keys: N when candidates are compared.
        sizes: N when sizes are compared; M = N * N.
    """

    calls: int = 1500
    seconds: float = 8.0
    enough: int = ENOUGH
    longest: float = 30.0
    blocks: int = 10
    sub_keys: int = SUB_KEYS
    sizes: tuple[int, ...] = (32, 256, 1024, 4096)


QUICK = Effort(calls=6, seconds=0.1, enough=4, longest=1.0, blocks=2, sub_keys=64, sizes=(16, 24, 32, 48))


Server = tuple[CTRModel, Callable[[], Batch]]


@torch.inference_mode()
def time_in_blocks(servers: Mapping[Any, Server], effort: Effort, device: torch.device) -> dict[Any, list[float]]:
    """Milliseconds of every call of each server; see :class:`Effort`."""
    found: dict[Any, list[float]] = {name: [] for name in servers}
    names = list(servers)
    for block in range(effort.blocks):
        first = block % len(names)  # the order rotates
        for name in names[first:] + names[:first]:
            model, request = servers[name]
            for _ in range(WARM_UP):
                _milliseconds(model, request(), device)
            times, started = found[name], time.perf_counter()
            enough, most = (-(-(block + 1) * calls // effort.blocks) for calls in (effort.enough, effort.calls))
            while len(times) < most:
                spent = effort.blocks * (time.perf_counter() - started)
                if spent > (effort.longest if len(times) < enough else effort.seconds):
                    break
                times.append(_milliseconds(model, request(), device))
    return found


def _milliseconds(model: CTRModel, batch: Batch, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    kept = model(batch)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    took = time.perf_counter() - started
    del kept  # returning memory to the system is not part of the call
    return 1e3 * took


def point(times: Sequence[float], candidates: int) -> dict[str, Any]:
    """The record of the times, in milliseconds, of calls with ``candidates`` each.

    >>> point([1.0, 2.0, 3.0], 8)
    {'candidates': 8, 'calls': 3, 'p50_ms': 2.0, 'p99_ms': 2.98, 'candidates_per_s': 4000.0}
    """
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "candidates": candidates,
        "calls": len(times),
        "p50_ms": round(float(p50), 4),
        "p99_ms": round(float(p99), 4),
        "candidates_per_s": round(1e3 * candidates * len(times) / sum(times), 1),
    }


def measure(device: torch.device, effort: Effort) -> Iterator[tuple[str, dict[str, Any]]]:
    """Section and record of every point."""
    models = {name: make_model(served, effort.sub_keys, device) for name, served in MODELS.items()}
    for candidates in CANDIDATES:
        servers: dict[Any, Server] = {
            name: (models[name], Request(served, candidates, device)) for name, served in MODELS.items()
        }
        for name, times in time_in_blocks(servers, effort, device).items():
            slots = effort.sub_keys**2 if models[name].memory_block() is not None else None
            yield "candidates", {"model": name, "slots": slots, **point(times, candidates)}
    del models, servers
    for name, served in GROWN.items():  # one query at a time, since the largest memory is 4 GiB
        servers = {N: (make_model(served, N, device), Request(served, GROWN_CANDIDATES, device)) for N in effort.sizes}
        for N, times in time_in_blocks(servers, effort, device).items():
            yield "sizes", {"model": name, "slots": N * N, **point(times, GROWN_CANDIDATES)}
        del servers


def described(effort: Effort) -> dict[str, Any]:
    """The settings of a run, for its result file."""
    models = {
        name: asdict(served) | {"model": asdict(settings_of(served, effort.sub_keys))}
        for name, served in (MODELS | GROWN).items()
    }
    return {"effort": asdict(effort), "features": FEATURES.to_dict(), "found": FOUND, "models": models}
