"""Where the time of ``lmn train`` goes: ``python -m benchmarks.training.profile --out FILE``, three minutes.

Each model is trained by ``lmn train``'s own code for some steps in the middle of its epoch, on one thread. Hooks around
functions of the library time what runs in them, each moment once: a function that calls a hooked one does not count it.
Batches are made by a second thread while a step runs; a step's share is what it waits for them, and how long making
them took stands beside. Evaluation and checkpoint come once an epoch; their share is that of a whole epoch. A second,
shorter run under torch's profiler tells the share of the ops of ``lmn_kernels`` and the slowest operators.

Without ``--rows`` the rows are synthetic, of the shape of Complete Journey's: 400,000 samples of 2,466 users whose
histories have 570 events, drawn from 28,165 items of 292 categories by a power law.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.result_files import ResultFile
from benchmarks.training.synthetic_rows import write_synthetic_rows
from lmn_kernels.optim import RowAdagrad
from lmn_model.ctr import CTRModel
from lmn_model.ctr.feature_embedding import FeatureEmbedding
from lmn_model.ctr.window.base import WindowModel
from lmn_model.data import BatchLoader, Dataset
from lmn_model.data.splits import Split
from lmn_model.modules.factored_memory import FactoredMemoryNetwork
from lmn_model.modules.large_memory_network import LargeMemoryNetwork
from lmn_model.modules.usage import MemoryUsage
from lmn_model.training import loop, schedule, train
from lmn_model.training.build import open_dataset
from lmn_model.training.memory_monitor import MemoryMonitor
from lmn_model.training.metrics_file import MetricsFile
from lmn_model.training.runs.state import RunState
from lmn_model.training.settings import Settings

MODELS: dict[str, dict[str, Any]] = {
    "DIN 50": {"window": "din", "window_size": 50, "memory": "none"},
    "LMN without a window": {"window": "none", "window_size": 1},
    "LMN + DIN 50": {"window": "din", "window_size": 50},
    "LMN + DIN 50 (joint query)": {"window": "din", "window_size": 50, "memory": "joint"},
}
STEP = {
    "batches": "waiting for batches",
    "embeddings": "embeddings",
    "interest": "interest in the window",
    "read": "memory read",
    "tower": "tower and the rest of the forward",
    "memory_loss": "memory loss",
    "backward": "backward",
    "dense": "optimiser, dense",
    "rows": "optimiser, value rows",
    "clearing": "optimiser, the rest",
    "usage": "usage count",
    "checks": "checks",
    "rest": "click loss and the rest of the loop",
}
"""Parts of a step, in the order of the table."""
EPOCH = {
    "curve": "points of the curve",
    "evaluation": "evaluation",
    "checkpoint": "checkpoint",
    "metrics": "metrics and curves drawn",
    "weights": "weights checked",
}
"""What comes once an epoch, or a fixed number of times; nothing inside it counts as part of a step."""
PROFILED_STEPS = 20
TOP = 15


class Clock:
    """Exclusive times of the main thread by part, from the end of the warm-up on."""

    def __init__(self, warm_up: int, at_end_of_warm_up: Callable[[], None] = lambda: None) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.made_seconds = 0.0
        self.steps = 0
        self.wall = 0.0
        self._warm_up, self._warmed_up = warm_up, at_end_of_warm_up
        self._stack: list[str] = []
        self._over = False
        self._since = self._began = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what runs inside for ``name``, or for what it is called from where that comes once an epoch."""
        beside = threading.current_thread() is not threading.main_thread()
        if beside or self._over or set(self._stack) & set(EPOCH):
            yield
            return
        self._lap()
        self._stack.append(name)
        self.calls[name] += 1
        try:
            yield
        finally:
            self._lap()
            self._stack.pop()

    @contextmanager
    def making(self) -> Iterator[None]:
        """Count what another thread does to make a batch."""
        began = time.perf_counter()
        yield
        if threading.current_thread() is not threading.main_thread() and not self._over:
            self.made_seconds += time.perf_counter() - began

    def step_begins(self) -> None:
        """Called before each step; forgets the warm-up."""
        self.steps += 1
        if self.steps == self._warm_up + 1:
            self._warmed_up()
            self._lap()
            self.seconds.clear()
            self.calls.clear()
            self.made_seconds, self._began = 0.0, self._since

    def epoch_ends(self) -> None:
        """Called when all steps are done."""
        self._lap()
        self._over = True
        self.steps -= self._warm_up
        self.wall = self._since - self._began

    def _lap(self) -> None:
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now


@contextmanager
def hooked(clock: Clock) -> Iterator[None]:
    """Functions of the library report to ``clock`` while this is entered; AttributeError if one is not there."""
    hooks: list[tuple[Any, str, str]] = [
        (loop.Trainer, "_run_epoch", "rest"),
        (MemoryMonitor, "after_step", "usage"),
        (loop.Trainer, "_after_step", "checks"),
        (loop.Trainer, "_record", "curve"),
        (loop, "check_weights", "weights"),
        (loop.Trainer, "_evaluate", "evaluation"),
        (MetricsFile, "write", "metrics"),
        (loop.Optimizers, "step", "clearing"),
        (RunState, "save", "checkpoint"),
        (torch.optim.AdamW, "step", "dense"),
        (RowAdagrad, "step", "rows"),
        (torch.Tensor, "backward", "backward"),
        (CTRModel, "forward", "tower"),
        (FeatureEmbedding, "forward", "embeddings"),
        *((kind, "forward", "interest") for kind in _concrete(WindowModel)),
        *((kind, "forward", "read") for kind in (FactoredMemoryNetwork, LargeMemoryNetwork)),
        *((kind, "losses", "memory_loss") for kind in (FactoredMemoryNetwork, LargeMemoryNetwork)),
        (MemoryUsage, "record", "usage"),
    ]
    with ExitStack() as stack:
        for owner, name, part in hooks:
            stack.enter_context(
                mock.patch.object(owner, name, _within(functools.partial(clock.part, part), getattr(owner, name)))
            )
        stack.enter_context(mock.patch.object(Split, "batch", _within(clock.making, Split.batch)))
        step, run_epoch = loop.Trainer._step, loop.Trainer._run_epoch

        def counted(trainer: loop.Trainer, batch: Any) -> None:
            clock.step_begins()
            step(trainer, batch)

        def ended(trainer: loop.Trainer, stop: threading.Event) -> None:
            run_epoch(trainer, stop)
            clock.epoch_ends()

        stack.enter_context(mock.patch.object(loop.Trainer, "_step", counted))
        stack.enter_context(mock.patch.object(loop.Trainer, "_run_epoch", ended))
        stack.enter_context(mock.patch.object(loop, "BatchLoader", functools.partial(_Waited, clock)))
        yield


def _concrete(kind: type) -> Iterator[type]:
    """The classes below ``kind`` that have a ``forward`` of their own."""
    for each in kind.__subclasses__():
        if "forward" in vars(each):
            yield each
        yield from _concrete(each)


def _within(part: Callable[[], Any], function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*arguments: Any, **options: Any) -> Any:
        with part():
            return function(*arguments, **options)

    return timed


class _Waited(BatchLoader):
    """A loader that counts how long its batches were waited for."""

    def __init__(self, clock: Clock, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._clock = clock

    def __iter__(self) -> Any:
        batches = super().__iter__()
        try:
            while True:
                with self._clock.part("batches"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch
        finally:
            batches.close()


@dataclass(frozen=True)
class Effort:
    """How much is measured: steps of the warm-up, steps that are timed, rows of a step."""

    warm_up: int
    steps: int
    batch_size: int


def middle(dataset: Dataset, rows: int) -> Dataset:
    """The data with ``rows`` of the training part, from its middle: what came before was seen, as it was there."""
    total = len(dataset.train)
    first = max(0, (total - rows) // 2)
    split = _rows_of(dataset.train, first, min(total, first + rows))
    return replace(dataset, train=split.following(_rows_of(dataset.train, 0, first)))


def _rows_of(split: Split, first: int, stop: int) -> Split:
    names = ("users", "items", "events", "history_ends", "labels", "timestamps")
    return replace(split, **{name: getattr(split, name)[first:stop] for name in names})


def profile_model(name: str, base: Settings, effort: Effort, epoch_rows: int | None = None) -> dict[str, Any]:
    """The record of one model: shares of a step and of an epoch, milliseconds, samples/s and slowest operators."""
    settings = base.override({**MODELS[name], "epochs": 1, "batch_size": effort.batch_size, "device": "cpu"})
    dataset = open_dataset(settings.data)
    epoch_steps = -(-(epoch_rows or len(dataset.train)) // effort.batch_size)
    clock = Clock(effort.warm_up)
    _train(settings, middle(dataset, effort.batch_size * (effort.warm_up + effort.steps)), clock)
    step_seconds = {part: clock.seconds.get(part, 0.0) / clock.steps for part in STEP}
    epoch_seconds = {part: clock.seconds.get(part, 0.0) for part in EPOCH}
    step = (clock.wall - sum(epoch_seconds.values())) / clock.steps
    # Fewer steps than an epoch's have as many points of the curve, and the warm-up took some of them.
    epoch_seconds["curve"] *= schedule.CURVE_POINTS / max(1, clock.calls["curve"])
    epoch = step * epoch_steps + sum(epoch_seconds.values())
    return {
        "model": name,
        "steps": clock.steps,
        "epoch_steps": epoch_steps,
        "step_ms": 1e3 * step,
        "samples_per_second": effort.batch_size / step,
        "epoch_seconds": epoch,
        "parts_ms": {part: 1e3 * seconds for part, seconds in step_seconds.items()},
        "shares_of_step": {part: seconds / step for part, seconds in step_seconds.items()},
        "once_an_epoch_seconds": epoch_seconds,
        "shares_of_epoch": {part: seconds / epoch for part, seconds in epoch_seconds.items()},
        "batch_made_beside_ms": 1e3 * clock.made_seconds / clock.steps,
        **_operators(
            settings, middle(dataset, effort.batch_size * (effort.warm_up + min(effort.steps, PROFILED_STEPS))), effort
        ),
    }


def _operators(settings: Settings, dataset: Dataset, effort: Effort) -> dict[str, Any]:
    """The share of the ops of ``lmn_kernels`` in a run under the profiler, of their row optimiser, what is slowest."""
    profiler = profile(activities=[ProfilerActivity.CPU])
    clock = Clock(effort.warm_up, profiler.start)

    record = loop.Trainer._record

    def stop_and_record(trainer: loop.Trainer, *arguments: Any) -> None:
        profiler.stop()
        record(trainer, *arguments)

    with (
        mock.patch.object(schedule, "CURVE_POINTS", 1),  # at the end of the last step, before what is not part of it
        mock.patch.object(loop.Trainer, "_record", stop_and_record),
    ):
        _train(settings, dataset, clock)
    step_us = 1e6 * (clock.wall - sum(clock.seconds.get(part, 0.0) for part in EPOCH)) / clock.steps
    averages = profiler.key_averages()
    ops = [event for event in averages if event.key.startswith("lmn_kernels::")]
    rows = 1e6 * clock.seconds.get("rows", 0.0) / clock.steps
    nodes = [event for event in averages if event.key.startswith("autograd::engine::evaluate_function: ")]

    def listed(events: list[Any], field: str) -> list[dict[str, Any]]:
        events = sorted(events, key=lambda event: getattr(event, field), reverse=True)[:TOP]
        return [
            {
                "name": event.key.removeprefix("autograd::engine::evaluate_function: "),
                "us_a_step": round(getattr(event, field) / clock.steps, 1),
                "calls_a_step": round(event.count / clock.steps, 2),
                "share": round(getattr(event, field) / clock.steps / step_us, 4),
            }
            for event in events
        ]

    return {
        "profiled_steps": clock.steps,
        "profiled_step_ms": step_us / 1e3,
        "share_of_kernel_ops": sum(event.cpu_time_total for event in ops) / clock.steps / step_us,
        "share_of_row_optimizer": rows / step_us,
        "kernel_ops": listed(ops, "cpu_time_total"),
        "backward_nodes": listed(nodes, "cpu_time_total"),
        "operators": listed([event for event in averages if "::" in event.key], "self_cpu_time_total"),
    }


def _train(settings: Settings, dataset: Dataset, clock: Clock) -> None:
    with tempfile.TemporaryDirectory() as folder, hooked(clock):
        train(settings, Path(folder) / "run", dataset=dataset)


def main(arguments: list[str] | None = None) -> int:
    """Run it; see the head of this module. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.profile", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="result file to write")
    parser.add_argument("--rows", type=Path, metavar="DIR", help="prepared rows; synthetic ones if not given")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; default 1")
    parser.add_argument("--steps", type=int, default=100, help="steps that are timed; default 100")
    parser.add_argument("--warm-up", type=int, default=10, help="steps before; default 10")
    parser.add_argument("--only", nargs="*", choices=tuple(MODELS), metavar="NAME", help="models, all if not given")
    parser.add_argument("--rehearse", action="store_true", help="tiny rows and memories: the figures mean nothing")
    options = parser.parse_args(arguments)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        with (
            ResultFile(options.out, "train_profile", "cpu", rehearsal=options.rehearse) as file,
            tempfile.TemporaryDirectory() as folder,
        ):
            file.data["rows"] = "synthetic" if options.rows is None else "given"
            if options.rows is None:
                size = dict(users=2466, items=28165, categories=291, events=570, rows=400_000)
                if options.rehearse:
                    size = dict(users=30, items=200, categories=9, events=60, rows=2000)
                write_synthetic_rows(Path(folder), **size)
            base = Settings().override(
                {
                    "dataset": "rows",
                    "path": os.path.abspath(options.rows or folder),
                    "threads": options.threads,
                    **({"sub_keys": 16, "top_k": 1} if options.rehearse else {"sub_keys": 1024}),
                }
            )
            effort = Effort(options.warm_up, options.steps, 64 if options.rehearse else 1024)
            for name in options.only or MODELS:
                record = profile_model(name, base, effort)
                file.add("models", record)
                print(f"{name}: {record['samples_per_second']:,.0f} samples/s", file=sys.stderr)
    finally:
        torch.set_num_threads(before)
    print("\n".join(table(file.data["models"])))
    return 0


def table(records: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of a Markdown table, a model a column."""

    def line(what: str, cells: Iterator[str]) -> str:
        return f"| {' | '.join((what, *cells))} |"

    yield line("share of a step", (record["model"] for record in records))
    yield line("---", ("---" for _ in records))
    for part, what in STEP.items():
        yield line(what, (f"{record['shares_of_step'][part]:.1%}" for record in records))
    yield line("in ops of `lmn_kernels`", (f"{record['share_of_kernel_ops']:.1%}" for record in records))
    yield line("ms a step", (f"{record['step_ms']:.1f}" for record in records))
    yield line("a batch is made beside, ms", (f"{record['batch_made_beside_ms']:.1f}" for record in records))
    yield line("samples/s in training", (f"{record['samples_per_second']:,.0f}" for record in records))
    for part, what in EPOCH.items():
        cells = (
            f"{record['once_an_epoch_seconds'][part]:.2f} s, {record['shares_of_epoch'][part]:.1%}"
            for record in records
        )
        yield line(f"once an epoch: {what}", cells)


if __name__ == "__main__":
    sys.exit(main())
