"""Batches of samples, and a loader that makes them ahead of the training step.

Gathers in numpy release the GIL, so one background thread is enough to hide the cost of a batch behind the step on the
batch before it. No worker process is needed: nothing is pickled and memory stays flat.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from lmn_model.data.splits import Split


@dataclass
class Batch:
    """B samples as tensors.

    Args:
        user: int64 [B, F_u], ids of the user's features; column 0 is the user id.
        item: int64 [B, F_i], ids of the candidate's features; column 0 is the item id.
        context: int64 [B, F_c], ids of the event's features.
        numeric: float32 [B, X], standardised numbers of user, item and event.
        history: int64 [B, T, F_i], the items that came strictly before the sample, oldest first. Padding, with all ids
            0, is at the front, so that column T - 1 is the newest.
        history_mask: bool [B, T], True where ``history`` is real.
        label: float32 [B], 0 or 1; NaN for pairs to predict.
        group: int64 [B], the user's row, for metrics by user; it tells apart the users that training has not seen.
        found: int64 [B, S, F_i], the newest S events of the *whole* history that share the candidate's value of the
            feature ``search_by``, oldest first, padded in front like ``history``; None without ``search_by``.
        found_mask: bool [B, S], True where ``found`` is real; None without ``search_by``.
        new_items: int64 [P, F_i], the events of the histories that no earlier sample of their user had in its history:
            what a memory has to write before it reads for this batch. Over a pass in the order of time each event
            comes once, with the first sample that may know of it. They lie by row of the batch, then oldest first.
            None unless the loader was asked for ``new_events``.
        new_rows: int64 [P], row in the batch of the sample that each of ``new_items`` came with; None as well.
    """

    user: Tensor
    item: Tensor
    context: Tensor
    numeric: Tensor
    history: Tensor
    history_mask: Tensor
    label: Tensor
    group: Tensor
    found: Tensor | None = None
    found_mask: Tensor | None = None
    new_items: Tensor | None = None
    new_rows: Tensor | None = None

    def __len__(self) -> int:
        return self.label.shape[0]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch with every tensor on ``device``."""
        tensors = {each.name: getattr(self, each.name) for each in fields(self)}
        return Batch(
            **{
                name: None if tensor is None else tensor.to(device, non_blocking=non_blocking)
                for name, tensor in tensors.items()
            }
        )


class BatchLoader:
    """Iterate over a split in batches.

    Args:
        split: the samples.
        batch_size: rows of a batch; the last batch may be smaller.
        order: ``"time"`` keeps the order of the split; ``"shuffle"`` permutes it by ``(seed, epoch)`` and nothing else.
        seed: integer >= 0.
        epoch: integer >= 0.
        start: index of the first batch to give, to go on where an earlier run stopped.
        prefetch: batches made ahead by one background thread; 0 makes each batch when it is asked for. The thread ends
            with the iterator, and what it raises is raised where the batch is asked for.
        new_events: give ``Batch.new_items`` and ``Batch.new_rows``; needs ``order="time"``. A loader that goes on at
            ``start`` gives what the whole pass gives from there.

    ``len(loader)`` is the number of batches that iteration gives, those before ``start`` left out.

    Raises:
        ValueError: if an argument is out of range, or ``new_events`` is asked of a shuffled order.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        order: Literal["time", "shuffle"] = "time",
        seed: int = 0,
        epoch: int = 0,
        start: int = 0,
        prefetch: int = 2,
        new_events: bool = False,
    ) -> None:
        if order not in ("time", "shuffle"):
            raise ValueError(f"BatchLoader: order must be 'time' or 'shuffle', got {order!r}")
        if new_events and order != "time":
            raise ValueError(f"BatchLoader: new_events needs order 'time', got {order!r}")
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("epoch", epoch, 0),
            ("start", start, 0),
            ("prefetch", prefetch, 0),
        ):
            if value < least:
                raise ValueError(f"BatchLoader: {name} must be >= {least}, got {value}")
        total = -(-len(split) // batch_size)
        if start > total:
            raise ValueError(f"BatchLoader: start must be <= {total}, the number of batches, got {start}")
        self._split = split
        self._batch_size = batch_size
        self._order = order
        self._seed = seed
        self._epoch = epoch
        self._start = start
        self._prefetch = prefetch
        self._new_events = new_events
        self._total = total

    def __len__(self) -> int:
        return self._total - self._start

    def __iter__(self) -> Generator[Batch, None, None]:
        batches = self._batches()
        return _made_ahead(batches, self._prefetch) if self._prefetch else batches

    def _batches(self) -> Generator[Batch, None, None]:
        count = len(self._split)
        rows = np.arange(count)
        if self._order == "shuffle":
            rows = np.random.default_rng([self._seed, self._epoch]).permutation(count)
        for first in range(self._start * self._batch_size, count, self._batch_size):
            yield self._split.batch(rows[first : first + self._batch_size], new_events=self._new_events)


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _produce(batches: Iterator[Batch], ready: queue.Queue[Batch | _Failure | None], stop: threading.Event) -> None:
    try:
        for batch in batches:
            ready.put(batch)
            if stop.is_set():
                return
        ready.put(None)
    except BaseException as error:
        ready.put(_Failure(error))


def _made_ahead(batches: Iterator[Batch], prefetch: int) -> Generator[Batch, None, None]:
    # The thread holds the queue and never this generator, so an iterator nobody holds any more is collected and closed.
    ready: queue.Queue[Batch | _Failure | None] = queue.Queue(maxsize=prefetch)
    stop = threading.Event()
    thread = threading.Thread(target=_produce, args=(batches, ready, stop), name="lmn-batches", daemon=True)
    thread.start()
    try:
        while (made := ready.get()) is not None:
            if isinstance(made, _Failure):
                raise made.error
            yield made
    finally:
        stop.set()
        # The thread puts at most one more batch before it sees the flag, and an empty queue has room for that one.
        while not ready.empty():
            ready.get_nowait()
        thread.join()
