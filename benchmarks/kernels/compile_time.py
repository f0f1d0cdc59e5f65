"""Time and frames of a cold ``torch.compile``: a memory layer against an ``nn.EmbeddingBag`` model of the same shape.

``python -m benchmarks.kernels.compile_time --out compile_time.json`` compiles each model in a process of its own with
empty caches, called as users do: without ``fullgraph=True``, backward pass included. The batches have four sizes; the
second size compiles once more, with a dynamic batch, and later ones must not compile. The processes take turns, so that
a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lmn_kernels.optim import RowAdagrad
from lmn_model import MemoryLayer

WIDTH, SUB_KEYS, TOP_K = 64, 256, 32
BATCHES = (64, 100, 130, 64, 257)
MODELS = ("memory", "embedding_bag")
WORK = ("layer", "step", "step_and_optimizer")


class BagModel(nn.Module):
    """What a :class:`MemoryLayer` has around its lookup, and a bag of as many rows from a table of the same shape."""

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
    """As :func:`measure`, in a new process with empty caches; shown on stderr as it comes."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            **os.environ,
            "TORCHINDUCTOR_CACHE_DIR": cache,
            "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
            "TRITON_CACHE_DIR": cache,
        }
        command = [sys.executable, "-m", "benchmarks.kernels.compile_time", "--one", model, work]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"compile_time: {model}, {work} failed:\n{done.stderr[-2000:]}")
    print(done.stdout.splitlines()[-1], file=sys.stderr)
    record: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return record


def compare(work: tuple[str, ...], rounds: int) -> dict[str, object]:
    """All records, and for each kind of work how many times as long the memory takes to compile."""
    records = [measure_cold(model, each) for _ in range(rounds) for each in work for model in MODELS]
    ratios = {}
    for each in work:
        median = {
            model: statistics.median(
                float(str(r["total_seconds"])) for r in records if (r["model"], r["work"]) == (model, each)
            )
            for model in MODELS
        }
        ratios[each] = round(median["memory"] / median["embedding_bag"], 3)
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batches": BATCHES,
        "shape": {"width": WIDTH, "sub_keys": SUB_KEYS, "top_k": TOP_K},
        "records": records,
        "memory_over_embedding_bag": ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=WORK, default=WORK, help="what is compiled (default: all)")
    parser.add_argument("--rounds", type=int, default=1, help="processes for each model and kind of work (default: 1)")
    parser.add_argument("--out", type=Path, help="file for the JSON, printed in any case")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "WORK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    text = json.dumps(compare(tuple(options.work), options.rounds), indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
