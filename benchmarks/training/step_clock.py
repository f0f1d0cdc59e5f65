"""A clock of the parts of a training step, and the hooks around functions of the library that drive it."""

from __future__ import annotations

import functools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from lmn_kernels.optim import RowAdagrad
from lmn_model.ctr.feature_embedding import FeatureEmbedding
from lmn_model.ctr.model import CTRModel
from lmn_model.ctr.window.base import WindowModel
from lmn_model.data import BatchLoader
from lmn_model.data.splits import Split
from lmn_model.modules.factored_memory import FactoredMemoryNetwork
from lmn_model.modules.large_memory_network import LargeMemoryNetwork
from lmn_model.modules.usage import MemoryUsage
from lmn_model.training import loop
from lmn_model.training.memory_monitor import MemoryMonitor
from lmn_model.training.metrics_file import MetricsFile
from lmn_model.training.runs.state import RunState

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
"""Work that comes once an epoch, or a fixed number of times; nothing inside it counts as part of a step."""


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
        """Count the time inside for ``name``; inside work that comes once an epoch it counts for that work instead."""
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
        """Count the time that another thread takes to make a batch."""
        began = time.perf_counter()
        yield
        if threading.current_thread() is not threading.main_thread() and not self._over:
            self.made_seconds += time.perf_counter() - began

    def step_begins(self) -> None:
        """Called before each step; clears the times of the warm-up."""
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
    """Time functions of the library with ``clock`` inside; AttributeError if one is missing."""
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
    """A loader that counts the time that training waits for its batches."""

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
