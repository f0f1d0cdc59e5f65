"""Hard search in a history: the newest events that share a value with the candidate.

A window shows what is recent; this shows what is alike, however old. Events are sorted once by user, value and
position, so that the events which a sample asks for are the end of one run, found by binary search. The cost of a batch
does not grow with the length of the histories, and nothing at or after the sample can be found: the search ends where
its history does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmn_model.data.histories import Histories


class HardSearch:
    """The events of all histories by user and value.

    Args:
        histories: what each user did.
        values: int64 [R], the value of each item row, >= 0. Equal values are found whatever they mean: the values that
            training has not seen share one id, and so find each other.
        window: S, the events to find.
    """

    def __init__(self, histories: Histories, values: NDArray[np.int64], window: int) -> None:
        items = histories.items
        self.window = window
        self._values = values
        self._value_count = int(values.max(initial=0)) + 1
        users = np.repeat(np.arange(len(histories.starts) - 1), np.diff(histories.starts))
        pairs = self._pair(users, items)
        order = np.argsort(pairs, kind="stable")  # a user's events of one value stay oldest first
        sorted_pairs = pairs[order]
        first = np.flatnonzero(np.diff(sorted_pairs, prepend=-1))
        self._pairs = sorted_pairs[first]
        self._starts = np.append(first, len(items))
        runs = np.repeat(np.arange(len(first)), np.diff(self._starts))
        # A run and a position in one sortable integer; both are below the number of events, so it cannot overflow.
        self._keys = runs * (len(items) + 1) + order
        self._items = np.append(items[order], histories.padding_item).astype(np.int32)

    def _pair(self, users: NDArray[np.integer], items: NDArray[np.integer]) -> NDArray[np.int64]:
        return users.astype(np.int64) * self._value_count + self._values[items]

    def find(
        self, users: NDArray[np.integer], items: NDArray[np.integer], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """The newest S events of each history whose item has the value of the candidate.

        Args:
            users: integer [B].
            items: integer [B], rows of the candidates.
            ends: int64 [B], see ``Histories.ends``.

        Returns:
            int32 [B, S] of item rows, oldest first, with the padding item in front, and bool [B, S], True where the
            item is real.
        """
        asked = self._pair(users, items)
        runs = np.searchsorted(self._pairs, asked)
        known = runs < len(self._pairs)
        known[known] = self._pairs[runs[known]] == asked[known]
        stops = np.searchsorted(self._keys, runs * len(self._items) + ends)
        begins = np.where(known, self._starts[runs], stops)
        places = stops[:, None] + np.arange(-self.window, 0)  # [B, S]
        mask = places >= begins[:, None]
        return self._items[np.where(mask, places, len(self._keys))], mask
