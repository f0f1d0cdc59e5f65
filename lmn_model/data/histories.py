"""The events of each user before a moment: flat arrays, and windows that hold only strictly earlier events.

Events lie in one flat array by user, then by time. A history is a slice of it, so all samples of a user share one copy
and a window of T events is one gather. "Earlier" is strict: the events of one basket have one timestamp and are not in
each other's history, which would leak the label of one into the next.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmn_model.data.replay import Calendar


class Histories:
    """Histories of all users.

    Args:
        users: integer [E], row of the user of each event, in [0, user_count).
        items: integer [E], row of the item of each event.
        timestamps: int64 [E]; equal timestamps keep the order of the arrays.
        common_clock: whether the timestamps of different users can be compared.
        user_count: number of users; a user without events has an empty history.
        padding_item: row that stands for no event.
    """

    def __init__(
        self,
        users: NDArray[np.integer],
        items: NDArray[np.integer],
        timestamps: NDArray[np.int64],
        *,
        user_count: int,
        padding_item: int,
        common_clock: bool = True,
    ) -> None:
        self.common_clock = common_clock
        order = np.lexsort((timestamps, users))
        moments = np.sort(timestamps)  # np.unique hashes, which is slower where most are sorted already
        self._times = moments[np.append(True, moments[1:] != moments[:-1])[: len(moments)]]
        self._keys = self._key(users[order], np.searchsorted(self._times, timestamps[order]))
        # Positions before a user's first event point at one more element, the padding item.
        self._items = np.append(items[order], padding_item).astype(np.int32)
        self._starts = np.zeros(user_count + 1, dtype=np.int64)
        np.cumsum(np.bincount(users, minlength=user_count), out=self._starts[1:])

    @classmethod
    def from_lists(
        cls,
        items: NDArray[np.integer],
        starts: NDArray[np.int64],
        times: NDArray[np.int64] | None = None,
        *,
        padding_item: int,
    ) -> Histories:
        """Histories of lists, with times or without.

        Without times that of an event is its place in the list of its user: the first n events of a user are those
        before time n, and end at ``ends(users, lengths)``.

        Args:
            items: integer [E], rows of the items by user, then oldest first.
            starts: int64 [U + 1], where each user's list begins, and E.
            times: int64 [E], never decreasing within a list; None if there are none.
            padding_item: row that stands for no event.
        """
        users = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        moments = np.arange(len(items)) - starts[users] if times is None else times
        return cls(
            users,
            items,
            moments,
            user_count=len(starts) - 1,
            padding_item=padding_item,
            common_clock=times is not None,
        )

    @property
    def items(self) -> NDArray[np.int32]:
        """int32 [E], item row of each event, by user, then oldest first."""
        return self._items[:-1]

    @property
    def starts(self) -> NDArray[np.int64]:
        """int64 [U + 1], the position of each user's first event, and E."""
        return self._starts

    @property
    def times(self) -> NDArray[np.int64]:
        """int64 [E], timestamp of each event, by user, then oldest first."""
        return self._times[self._keys % (len(self._times) + 1)]

    @cached_property
    def calendar(self) -> Calendar | None:
        """The events of all users in the order of time; None without a common clock. Sorts once."""
        return Calendar.of(self.times) if self.common_clock else None

    def at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Rows of item, int32 [P], and user, int64 [P], of the events at ``positions``, int64 [P]."""
        return self._items[positions], self._keys[positions] // (len(self._times) + 1)

    @property
    def padding_item(self) -> int:
        """Row that stands for no event."""
        return int(self._items[-1])

    def _key(self, users: NDArray[np.integer], time_ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        # User and time in one sortable integer, so that one binary search finds a position inside a user's events.
        return users.astype(np.int64) * (len(self._times) + 1) + time_ranks

    def ends(self, users: NDArray[np.integer], timestamps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each history ends in the flat array.

        Args:
            users: integer [S].
            timestamps: int64 [S].

        Returns:
            int64 [S]: the position after the last event of the user with a timestamp strictly below the sample's.
        """
        return np.searchsorted(self._keys, self._key(users, np.searchsorted(self._times, timestamps)))

    def windows(
        self, users: NDArray[np.integer], ends: NDArray[np.int64], window: int
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """The newest ``window`` events of each history, oldest first.

        Args:
            users: integer [B].
            ends: int64 [B], from ``ends``.
            window: T.

        Returns:
            int32 [B, T] of item rows, with the padding item in front where the history is shorter, and bool [B, T],
            True where the item is real.
        """
        positions = ends[:, None] + np.arange(-window, 0)  # [B, T]
        mask = positions >= self._starts[users][:, None]
        return self._items[np.where(mask, positions, len(self._keys))], mask

    def between(
        self, begins: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The events from ``begins`` to before ``ends``: B stretches after each other.

        Args:
            begins: int64 [B], positions in the flat array.
            ends: int64 [B]; a stretch that ends at or before its begin is empty.

        Returns:
            int32 [P] of item rows, oldest first within a stretch, and int64 [P], the stretch of each.
        """
        counts = np.maximum(ends - begins, 0)
        of = np.repeat(np.arange(len(counts)), counts)
        positions = np.arange(len(of)) + (begins - np.cumsum(counts) + counts)[of]
        return self._items[positions], of
