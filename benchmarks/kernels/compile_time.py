"""Time a cold ``torch.compile`` of a memory layer and of an ``nn.EmbeddingBag`` model of the same shape.

``python -m benchmarks.kernels.compile_time --out FILE`` compiles each model in a fresh process with empty caches, and
calls it as users do: without ``fullgraph=True``, backward pass included. The batches have four sizes; the second one
compiles once more, with a dynamic batch, and later ones must not compile. The processes take turns, so that a busy
machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.processes import in_fresh_process
from benchmarks.result_files import ResultFile
from lmn_kernels.optim import RowAdagrad
from lmn_model import MemoryLayer

WIDTH, SUB_KEYS, TOP_K = 64, 256, 32
BATCHES = (64, 100, 130, 64, 257)
MODELS = ("memory", "embedding_bag")
WORK = ("layer", "step", "step_and_optimizer")


class BagModel(nn.Module):
    """A :class:`MemoryLayer` with its lookup replaced by a bag of as many rows from a table of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.norm = nn.Linear(WIDTH, 2 * WIDTH), nn.LayerNorm(WIDTH)
        self.bag = nn.EmbeddingBag(SUB_KEYS**2, WIDTH, mode="sum", sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        queries = self.norm(self.query(x).view(-1, 2, WIDTH))
        rows = (queries[:, :, : TOP_K // 2].abs() * 1000).long().flatten(1).clamp_max(SUB_KEYS**2 - 1)
        read: Tensor = self.bag(rows) + queries.sum(1)
        return read


def compiled_step(model: str, work: str) -> Callable[[Tensor], None]:
    """Forward, backward and update of a model; compiled is the layer, the loss and ``backward()``, or all of it."""
    layer: MemoryLayer | BagModel
    table: Tensor
    rows: torch.optim.Optimizer
    if model == "memory":
        layer = MemoryLayer(WIDTH, WIDTH, sub_keys=SUB_KEYS, top_k=TOP_K)
        table = layer.values
        rows = RowAdagrad([table], lr=0.05)
    else:
        layer = BagModel()
        table = layer.bag.weight
        rows = torch.optim.SparseAdam([table], lr=0.05)
    others = torch.optim.SGD([each for each in layer.parameters() if each is not table], lr=0.05)
    called: Callable[[Tensor], Tensor] = torch.compile(layer) if work == "layer" else layer

    def gradients(x: Tensor) -> None:
        called(x).square().mean().backward()

    def update() -> None:
        for optimizer in (rows, others):
            optimizer.step()
            optimizer.zero_grad()

    def step(x: Tensor) -> None:
        gradients(x)
        update()

    if work == "step_and_optimizer":
        return torch.compile(step)
    if work == "step":
        gradients = torch.compile(gradients)
    return step


def measure(model: str, work: str) -> dict[str, object]:
    """Seconds of each call and frames compiled up to it, in this process."""
    from torch._dynamo.utils import counters, get_compilation_metrics

    torch.manual_seed(0)
    step = compiled_step(model, work)
    seconds, frames = [], []
    for B in BATCHES:
        x = torch.randn(B, WIDTH)
        start = time.perf_counter()
        step(x)
        seconds.append(round(time.perf_counter() - start, 3))
        frames.append(counters["frames"]["total"])
    names = [str(each.co_filename) for each in get_compilation_metrics()]
    return {
        "model": model,
        "work": work,
        "seconds": seconds,
        "total_seconds": round(sum(seconds), 3),
        "frames": frames,
        "frames_in_ops": sum("lmn_kernels" in name for name in names),
        "graph_breaks": sum(counters["graph_break"].values()),
    }


def measure_cold(model: str, work: str) -> dict[str, object]:
    """As :func:`measure`, in a new process with empty caches."""
    with tempfile.TemporaryDirectory() as cache:
        empty = {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1", "TRITON_CACHE_DIR": cache}
        with mock.patch.dict(os.environ, empty):
            return in_fresh_process(measure, model, work)


def ratios(records: list[dict[str, Any]]) -> dict[str, float]:
    """For each kind of work, the median compile time of the memory over that of the embedding bag."""
    found = {}
    for work in dict.fromkeys(record["work"] for record in records):
        memory, bag = (
            statistics.median(r["total_seconds"] for r in records if (r["model"], r["work"]) == (model, work))
            for model in MODELS
        )
        found[work] = round(memory / bag, 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=WORK, default=WORK, help="what is compiled (default: all)")
    parser.add_argument("--rounds", type=int, default=1, help="processes for each model and kind of work (default: 1)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="result file to write")
    options = parser.parse_args()
    about = {"batches": BATCHES, "shape": {"width": WIDTH, "sub_keys": SUB_KEYS, "top_k": TOP_K}}
    with ResultFile(options.out, "compile_time", "cpu", **about) as file:
        for _, work, model in itertools.product(range(options.rounds), options.work, MODELS):
            record = measure_cold(model, work)
            file.add("records", record)
            print(record, file=sys.stderr)
        file.data["memory_over_embedding_bag"] = ratios(file.data["records"])
    print(file.data["memory_over_embedding_bag"])


if __name__ == "__main__":
    main()
