"""Our half of the comparison with FuxiCTR: the speed of ``lmn train``, with its loader and on batches made before."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Generator, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from lmn_model.data import Batch, BatchLoader, Dataset
from lmn_model.training import loop
from lmn_model.training.build import open_dataset
from lmn_model.training.default_sizes import fill_sizes
from lmn_model.training.reproducible import reproducible
from lmn_model.training.runs.folder import RunFolder
from lmn_model.training.settings import Settings


class _Enough(Exception):
    """The requested steps are done."""


class _Timed:
    """The batches of our loader up to the one after the last step, and the time of each request."""

    def __init__(self, batches: Iterable[Batch], steps: int, stamps: list[float]) -> None:
        self._batches, self._steps, self._stamps = batches, steps, stamps

    def __iter__(self) -> Generator[Batch, None, None]:
        with closing(_closable(self._batches)) as batches:
            for _ in range(self._steps):
                self._stamps.append(time.perf_counter())
                yield next(batches)
            self._stamps.append(time.perf_counter())
            raise _Enough


def _closable(batches: Iterable[Batch]) -> Generator[Batch, None, None]:
    yield from batches


def measure_ours(settings: Settings, budget: dict[str, Any]) -> dict[str, Any]:
    """Train our model for the steps of ``budget``, in a fresh process; the fields of ``fuxictr_provider.py``."""
    with reproducible(settings.training.seed, settings.training.threads, torch.device("cpu")):
        dataset = open_dataset(settings.data)
        settings, _ = fill_sizes(settings, dataset)
        total = -(-len(dataset.train) // settings.training.batch_size)
        steps = budget["steps"] or total - 1 - budget["warm_up"]
        start = (total - steps - budget["warm_up"]) // 2 if settings.model.writes_new_events else 0
        loader = BatchLoader(
            dataset.train,
            settings.training.batch_size,
            order=settings.training.order,
            seed=settings.training.seed,
            start=start,
            new_events=settings.model.writes_new_events,
            writes=settings.training.writes,
        )
        with closing(iter(loader)) as batches:
            ready = list(itertools.islice(batches, budget["ready_batches"]))
        with closing(iter(loader)) as batches:
            next(batches)
            first = time.perf_counter()
            for _ in range(budget["ready_batches"]):
                next(batches)
            loader_seconds = time.perf_counter() - first
        found: dict[str, Any] = {"steps": steps, "loader_seconds": loader_seconds}
        seconds, loss, parameters = _train(settings, dataset, None, budget["warm_up"], steps, start)
        found |= {"seconds": seconds, "mean_loss": loss, "parameters": parameters, "start": start}
        ready_steps = budget["ready_steps"]
        found["ready_seconds"], _, _ = _train(settings, dataset, ready, budget["warm_up"], ready_steps, start)
        return {**found, "ready_steps": ready_steps, "loader_batches": budget["ready_batches"]}


def _train(
    settings: Settings, dataset: Dataset, ready: list[Batch] | None, warm_up: int, steps: int, start: int
) -> tuple[float, float, int]:
    """Seconds of ``steps`` steps of ``lmn train``, mean click loss from the start, and number of dense parameters."""
    stamps: list[float] = []

    def loader(*arguments: Any, **options: Any) -> Iterable[Batch]:
        batches = BatchLoader(*arguments, **options) if ready is None else itertools.cycle(ready)
        return _Timed(batches, warm_up + steps, stamps)

    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        run.make()
        trainer = loop.Trainer(settings, dataset, run, torch.device("cpu"))
        trainer.state.progress.epoch_step = start
        with mock.patch.object(loop, "BatchLoader", loader), suppress(_Enough):
            trainer.run()
    click_loss, _, rows = trainer.state.sums.tolist()
    parameters = trainer.state.model.parameter_counts()
    return stamps[warm_up + steps] - stamps[warm_up], click_loss / rows, parameters["total"] - parameters["memory"]
