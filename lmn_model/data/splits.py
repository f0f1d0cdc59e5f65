"""Samples of one split, kept as row numbers into shared tables until a batch is made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from lmn_model.data.batches import Batch
from lmn_model.data.features import FeatureTable, is_unseen
from lmn_model.data.histories import Histories
from lmn_model.data.replay import Writes
from lmn_model.data.search import HardSearch
from lmn_model.data.user_rates import UserRates


@dataclass(frozen=True, eq=False)
class SampleTables:
    """What the splits of one data set share.

    Args:
        users: one row a user.
        items: one row an item, and among them a row of zeros, ``histories.padding_item``, which padding points at.
        events: context features, one row an event.
        histories: the events of each user, as rows of ``items``.
        window: T, the newest events of a history that a batch holds.
        search: finds the events that share a value with the candidate; None without ``DataOptions.search_by``.
        user_rates: two more numeric features of a sample, of the user's earlier labels; None without them.
    """

    users: FeatureTable
    items: FeatureTable
    events: FeatureTable
    histories: Histories
    window: int
    search: HardSearch | None = None
    user_rates: UserRates | None = None


@dataclass(frozen=True, eq=False)
class Split:
    """S samples in the order of time (of the file, for pairs to predict). S may be 0.

    Args:
        tables: shared tables.
        users: int32 [S], row of the user.
        items: int32 [S], row of the candidate.
        events: int32 [S], row of the event whose context the sample has; a negative has that of its positive.
        history_ends: int64 [S], see ``Histories.ends``.
        labels: float32 [S], 0 or 1; NaN for pairs to predict.
        timestamps: int64 [S], on the clock of the table. Prepared rows may have no times: a sample's share of its
            user's history then takes their place, see :func:`lmn_model.data.rows.load.load_rows`.
        seen: int64 [U], where the events of each user begin that no sample of an earlier split has in its history;
            None if there is no earlier split.
        after: the last timestamp of the earlier splits; None if there is none.
    """

    tables: SampleTables
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    events: NDArray[np.int32]
    history_ends: NDArray[np.int64]
    labels: NDArray[np.float32]
    timestamps: NDArray[np.int64]
    seen: NDArray[np.int64] | None = None
    after: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def groups(self) -> NDArray[np.int64]:
        """int64 [S], row of the user; users without an id from training have different rows."""
        return self.users.astype(np.int64)

    def unseen(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether training has no id for the user and the item of each sample, bool [S] each.

        For events only: the ids of prepared rows do not show whether training has seen them.
        """
        tables = self.tables
        return is_unseen(tables.users.ids[self.users, 0]), is_unseen(tables.items.ids[self.items, 0])

    @cached_property
    def new_starts(self) -> NDArray[np.int64]:
        """int64 [S], where the events begin that no earlier sample of the user, in the order of the split, holds.

        For ``writes = "samples"``.

        They end at ``history_ends``; there are none if that is not beyond the start. All of the history is new to the
        first sample of a user, so that over the split each event before the user's last sample is new exactly once.
        """
        order = np.argsort(self.users, kind="stable")
        users = self.users[order]
        # Positions of a later user are all larger, so that one running maximum serves all users.
        seen = np.maximum.accumulate(self.history_ends[order])
        starts = np.empty(len(self), dtype=np.int64)
        first = self.tables.histories.starts if self.seen is None else self.seen
        starts[order] = np.maximum(first[users], np.append(0, seen)[:-1])
        return starts

    def following(self, earlier: Split) -> Split:
        """These samples as a split after ``earlier``: events that batches of it carry are not new here."""
        seen = earlier.tables.histories.starts.copy() if earlier.seen is None else earlier.seen.copy()
        np.maximum.at(seen, earlier.users, earlier.history_ends)
        last = [int(earlier.timestamps.max())] if len(earlier) else []
        after = max(last if earlier.after is None else [*last, earlier.after], default=None)
        return replace(self, seen=seen, after=after)

    def writes(self, wanted: Writes | None = None) -> Writes:
        """The rule by which batches carry new events: ``wanted``, or None for the calendar where there are times.

        Raises:
            ValueError: if the calendar is wanted and the data have no times.
        """
        calendar = self.tables.histories.common_clock
        if wanted == "calendar" and not calendar:
            raise ValueError("writes = 'calendar' needs events with times, and these prepared rows have none")
        return wanted or ("calendar" if calendar else "samples")

    def batch(
        self,
        rows: NDArray[np.integer],
        *,
        new_events: bool = False,
        writes: Writes | None = None,
        feedback: bool = False,
    ) -> Batch:
        """The samples at ``rows`` as tensors.

        Args:
            rows: integer [B], each in [0, S), in any order; new events by the calendar need consecutive rows.
            new_events: give ``Batch.new_items`` and ``Batch.new_users``.
            writes: the rule for new events; None for the calendar where there are times.
            feedback: give ``Batch.feedback_items``, ``feedback_users`` and ``feedback_labels``; as new events by the
                calendar.

        Returns:
            The batch, B rows in the order of ``rows``.

        Raises:
            IndexError: if a row is out of range.
            ValueError: if the calendar is wanted and the data have no times; or, for events by the calendar and for
                feedback, the samples are not in the order of time, or the rows are not consecutive.
        """
        tables = self.tables
        users, items, events = self.users[rows], self.items[rows], self.events[rows]  # [B]
        ends = self.history_ends[rows]
        history, mask = tables.histories.windows(users, ends, tables.window)  # [B, T]
        numeric = [tables.users.numbers[users], tables.items.numbers[items], tables.events.numbers[events]]
        if tables.user_rates is not None:
            numeric.append(tables.user_rates.before(users, self.timestamps[rows]))
        batch = Batch(
            user=torch.from_numpy(tables.users.ids[users]),  # [B, F_u]
            item=torch.from_numpy(tables.items.ids[items]),  # [B, F_i]
            context=torch.from_numpy(tables.events.ids[events]),  # [B, F_c]
            numeric=torch.from_numpy(np.concatenate(numeric, axis=1)),  # [B, X]
            history=torch.from_numpy(tables.items.ids.take(history, axis=0)),  # [B, T, F_i]
            history_mask=torch.from_numpy(mask),
            label=torch.from_numpy(self.labels[rows]),
            group=torch.from_numpy(users.astype(np.int64)),
        )
        if tables.search is not None:
            found, found_mask = tables.search.find(users, items, ends)  # [B, S]
            batch.found = torch.from_numpy(tables.items.ids.take(found, axis=0))  # [B, S, F_i]
            batch.found_mask = torch.from_numpy(found_mask)
        if new_events:
            new_items, new_users = self._new_events(rows, writes)  # [P]
            batch.new_items = torch.from_numpy(tables.items.ids.take(new_items, axis=0))  # [P, F_i]
            batch.new_users = torch.from_numpy(tables.users.ids[new_users, 0])
        if feedback:
            known = self._feedback(rows)
            batch.feedback_items = torch.from_numpy(tables.items.ids[self.items[known]])  # [Q, F_i]
            batch.feedback_users = torch.from_numpy(tables.users.ids[self.users[known], 0])
            batch.feedback_labels = torch.from_numpy(self.labels[known])
        return batch

    def _feedback(self, rows: NDArray[np.integer]) -> slice:
        """The samples whose labels the batch of ``rows`` carries."""
        if not len(rows):
            return slice(0, 0)
        first, stop = self._span(rows, "feedback")
        low = 0 if first == 0 else int(np.searchsorted(self.timestamps, self.timestamps[first]))
        high = len(self) if stop == len(self) else int(np.searchsorted(self.timestamps, self.timestamps[stop]))
        return slice(low, high)

    def _span(self, rows: NDArray[np.integer], what: str) -> tuple[int, int]:
        """The first row and the one after the last; raises unless rows are consecutive and samples in time order."""
        if not self._in_time_order:
            raise ValueError(f"Split.batch: samples must be in the order of time for {what}")
        first, stop = int(rows[0]), int(rows[0]) + len(rows)
        if not np.array_equal(rows, np.arange(first, stop)):
            raise ValueError(f"Split.batch: rows must be consecutive for {what}")
        return first, stop

    def _new_events(
        self, rows: NDArray[np.integer], wanted: Writes | None
    ) -> tuple[NDArray[np.int32], NDArray[np.integer]]:
        """Rows of item and user, [P] each, of the events that are new with the samples at ``rows``."""
        histories = self.tables.histories
        if self.writes(wanted) == "samples":
            items, of = histories.between(self.new_starts[rows], self.history_ends[rows])
            return items, self.users[rows[of]]
        return histories.at(self._stretch(rows))

    def _stretch(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """Positions of the events that the calendar carries with the samples at ``rows``."""
        calendar = self.tables.histories.calendar
        if calendar is None or not len(rows):
            return np.empty(0, dtype=np.int64)
        first, stop = self._span(rows, "writes = 'calendar'")
        return calendar.stretch(self.timestamps, first, stop, self.after)

    @cached_property
    def _in_time_order(self) -> bool:
        return bool((self.timestamps[1:] >= self.timestamps[:-1]).all())
