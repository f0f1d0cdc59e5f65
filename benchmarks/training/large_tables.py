"""Make, train, save and load large memories: ``python -m benchmarks.training.large_tables --out FILE``.

Memories of 2^24 and 2^26 slots need 18 GiB of memory and 16 GiB of disk. One process makes a memory, trains it for
three steps with RowAdagrad while its reads are counted, and saves it; another loads and trains it. Both report seconds
and their peak of resident memory over the bytes that they must hold: the table, the optimiser's state and the counts. A
second copy of the table anywhere would show as a peak of nearly 2. Checkpoints lie in a folder beside FILE during the
run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.kernels.peak_memory import peak_resident_bytes
from benchmarks.processes import in_fresh_process
from benchmarks.result_files import ResultFile
from lmn_kernels.optim import RowAdagrad
from lmn_model.modules.memory_layer import MemoryLayer
from lmn_model.modules.usage import MemoryUsage
from lmn_model.training.runs.checkpoint import open_checkpoint, save_checkpoint

SUB_KEYS = (4096, 8192)
WIDTH, KEY_DIM, TOP_K, ROWS, STEPS = 64, 64, 32, 4096, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every size. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.large_tables", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="result file to write")
    parser.add_argument("--threads", type=int, default=2, help="torch threads; default 2")
    parser.add_argument("--rehearse", action="store_true", help="tiny tables: the figures mean nothing")
    options = parser.parse_args(arguments)
    with (
        ResultFile(options.out, "large_tables", "cpu", rehearsal=options.rehearse) as file,
        tempfile.TemporaryDirectory(dir=options.out.parent) as folder,
    ):
        path = Path(folder) / "memory.safetensors"
        for N in (64, 128) if options.rehearse else SUB_KEYS:
            record: dict[str, Any] = {"slots": N * N, "width": WIDTH, "optimizer": "RowAdagrad", "dtype": "float32"}
            for task in (train_and_save, load_and_train):
                record |= in_fresh_process(task, N, path, options.threads)
                print(f"{N * N:,} slots: {task.__name__} done", file=sys.stderr)
            file.add("tables", {**record, "file_bytes": path.stat().st_size})
            path.unlink()
    return 0


def train_and_save(N: int, path: Path, threads: int) -> dict[str, Any]:
    """Make a memory, train and save it; seconds of each, bytes held and peak of this process."""
    torch.set_num_threads(threads)
    clock = _Clock()
    layer, rows = _make(N)
    clock.stop("make_s")
    _train(layer, rows)
    clock.stop("train_s")
    state = rows.state[layer.values]
    tensors = {"values": layer.values, **{f"values/{name}": value for name, value in state.items()}}
    tensors |= {f"usage/{name}": value for name, value in _usage(layer).state().items()}
    save_checkpoint(path, tensors, {})
    clock.stop("save_s")
    return {
        **clock.seconds,
        "held_bytes": sum(each.nbytes for each in tensors.values()),
        "save_peak_bytes": peak_resident_bytes(),
    }


def load_and_train(N: int, path: Path, threads: int) -> dict[str, Any]:
    """Load what :func:`train_and_save` wrote and train on."""
    torch.set_num_threads(threads)
    layer, rows = _make(N)
    clock = _Clock()
    with open_checkpoint(path) as file:
        clock.stop("verify_s")
        file.read_into("values", layer.values)
        names = [name for name in file.tensors if name.startswith("values/")]
        state = {name.removeprefix("values/"): file.read(name) for name in names}
        rows.load_state_dict({**rows.state_dict(), "state": {0: state}})
        usage = {name.removeprefix("usage/"): file.read(name) for name in file.tensors if name.startswith("usage/")}
        _usage(layer).load_state(usage)
        del usage
    clock.stop("load_s")
    _train(layer, rows)
    if int(rows.state[layer.values]["step"]) != 2 * STEPS:
        raise AssertionError(f"{2 * STEPS} steps should have been counted, got {rows.state[layer.values]['step']}")
    return {**clock.seconds, "load_peak_bytes": peak_resident_bytes()}


def _make(N: int) -> tuple[MemoryLayer, RowAdagrad]:
    torch.manual_seed(0)
    layer = MemoryLayer(WIDTH, WIDTH, sub_keys=N, top_k=TOP_K, key_dim=KEY_DIM)
    layer.usage = MemoryUsage(N)
    return layer, RowAdagrad(layer.values_parameters(), lr=0.05)


def _usage(layer: MemoryLayer) -> MemoryUsage:
    if layer.usage is None:
        raise AssertionError("the layer counts its reads")
    return layer.usage


def _train(layer: MemoryLayer, rows: RowAdagrad) -> None:
    for _ in range(STEPS):
        x = torch.randn(ROWS, WIDTH)
        (layer(x) - x).square().mean().backward()
        rows.step()
        layer.zero_grad(set_to_none=True)
        _usage(layer).advance()


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now


if __name__ == "__main__":
    sys.exit(main())
