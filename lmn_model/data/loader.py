"""Iterate over a split in batches that a background thread makes ahead of the training step.

Gathers in numpy release the GIL, so one thread is enough to hide the cost of a batch behind the step on the batch
before it. No worker process is needed: nothing is pickled and memory stays flat.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import numpy as np

from lmn_model.data.batches import Batch
from lmn_model.data.replay import Writes
from lmn_model.data.splits import Split


@dataclass(frozen=True, eq=False)
class BatchLoader:
    """Iterate over a split in batches.

    Args:
        split: the samples.
        batch_size: rows of a batch; the last batch may be smaller.
        order: ``"time"`` keeps the order of the split; ``"shuffle"`` permutes it by ``(seed, epoch)`` and nothing else.
        seed: integer >= 0.
        epoch: integer >= 0.
        start: index of the first batch, to continue where an earlier run stopped.
        prefetch: batches that one background thread makes ahead; 0 makes each batch when it is requested. The thread
            ends with the iterator, and what it raises is raised where the batch is requested.
        new_events: give ``Batch.new_items`` and ``Batch.new_users``; needs ``order="time"``. With ``start`` the batches
            are the same as in the whole pass.
        writes: which events are new with a batch, see :class:`lmn_model.data.Batch`; None takes ``"calendar"`` where
            the data have times and ``"samples"`` elsewhere.
        feedback: give ``Batch.feedback_items``, ``feedback_users`` and ``feedback_labels``; needs ``order="time"``.

    ``len(loader)`` is the number of batches from ``start`` on.

    Raises:
        ValueError: if an argument is out of range, ``new_events`` or ``feedback`` comes with a shuffled order,
            or ``writes`` is ``"calendar"`` and the data have no times.
    """

    split: Split
    batch_size: int
    _: KW_ONLY
    order: Literal["time", "shuffle"] = "time"
    seed: int = 0
    epoch: int = 0
    start: int = 0
    prefetch: int = 2
    new_events: bool = False
    writes: Writes | None = None
    feedback: bool = False

    def __post_init__(self) -> None:
        if self.order not in ("time", "shuffle"):
            raise ValueError(f"BatchLoader: order must be 'time' or 'shuffle', got {self.order!r}")
        for name in ("new_events", "feedback"):
            if getattr(self, name) and self.order != "time":
                raise ValueError(f"BatchLoader: {name} needs order 'time', got {self.order!r}")
        if self.writes not in (None, "calendar", "samples"):
            raise ValueError(f"BatchLoader: writes must be 'calendar', 'samples' or None, got {self.writes!r}")
        if self.new_events:
            self.split.writes(self.writes)
        for name, lowest in {"batch_size": 1, "seed": 0, "epoch": 0, "start": 0, "prefetch": 0}.items():
            if (value := getattr(self, name)) < lowest:
                raise ValueError(f"BatchLoader: {name} must be >= {lowest}, got {value}")
        if self.start > self._total:
            raise ValueError(f"BatchLoader: start must be <= {self._total}, the number of batches, got {self.start}")

    @property
    def _total(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __len__(self) -> int:
        return self._total - self.start

    def __iter__(self) -> Generator[Batch, None, None]:
        batches = self._batches()
        return _made_ahead(batches, self.prefetch) if self.prefetch else batches

    def _batches(self) -> Generator[Batch, None, None]:
        count = len(self.split)
        rows = np.arange(count)
        if self.order == "shuffle":
            rows = np.random.default_rng([self.seed, self.epoch]).permutation(count)
        for first in range(self.start * self.batch_size, count, self.batch_size):
            part = rows[first : first + self.batch_size]
            yield self.split.batch(part, new_events=self.new_events, writes=self.writes, feedback=self.feedback)


def _made_ahead(batches: Iterator[Batch], prefetch: int) -> Generator[Batch, None, None]:
    # The thread never holds this generator, so that an abandoned iterator is collected, closed, and ends the thread.
    thread = ThreadPoolExecutor(1, thread_name_prefix="lmn-batches")
    try:
        made = deque(thread.submit(next, batches, None) for _ in range(prefetch))
        while (batch := made.popleft().result()) is not None:
            made.append(thread.submit(next, batches, None))
            yield batch
    finally:
        thread.shutdown(cancel_futures=True)
