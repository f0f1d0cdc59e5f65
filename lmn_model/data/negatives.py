"""Negatives for data without labels: items drawn by their popularity, in the training split or in a group of events.

A random event of the training split holds each item with the probability of its popularity, so no table of
probabilities is needed. The positive itself must not be drawn: its events are skipped by shifting the draw past their
block in the list of events sorted by item. That draws from the exact conditional distribution at once, where drawing
again until it differs is slow, or wrong after a fixed number of rounds, when one item makes up most of the events.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmn_model.data.schema import DataError


class NegativeSampler:
    """Draws items by popularity.

    Args:
        positives: integer [P], the item row of each positive of the training split.
        item_count: number of items.

    Raises:
        DataError: if the training split holds fewer than two items.
    """

    def __init__(self, positives: NDArray[np.integer], item_count: int) -> None:
        self._counts = np.bincount(positives, minlength=item_count)
        if np.count_nonzero(self._counts) < 2:
            raise DataError("negatives: the training split holds a single item, so no other item can be drawn")
        self._ends = np.cumsum(self._counts)

    def draw(self, positives: NDArray[np.integer], count: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """Draw ``count`` items for each positive, never the positive itself.

        Args:
            positives: integer [S], item rows.
            count: negatives for each positive.
            rng: source of randomness.

        Returns:
            int32 [S, count]. Other items that the user took may be among them, as in any sampling by popularity.
        """
        own = self._counts[positives][:, None]  # [S, 1]
        own_start = self._ends[positives][:, None] - own
        draws = rng.integers(0, self._ends[-1] - own, size=(len(positives), count))  # [S, count]
        draws += np.where(draws >= own_start, own, 0)
        return np.searchsorted(self._ends, draws, "right").astype(np.int32)


class GroupedNegativeSampler:
    """Draws items of other events in the positive's group, such as those of the same day.

    Within a group that is a draw by popularity. Positives and negatives are then equally popular at any moment, so that
    an item that is new or out of season does not give the label away.

    Args:
        groups: int64 [P], the group of each event, >= 0.
        items: integer [P], its item row, in [0, item_count).
        item_count: number of items.
    """

    def __init__(self, groups: NDArray[np.int64], items: NDArray[np.integer], item_count: int) -> None:
        self._item_count = item_count
        self._keys = np.sort(groups * item_count + items)  # by group, then by item

    def can_draw(self, groups: NDArray[np.int64], items: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Whether the group of each event holds another item, bool [S]."""
        _, _, _, others = self._blocks(groups, items)
        return others > 0

    def draw(
        self, groups: NDArray[np.int64], items: NDArray[np.integer], rng: np.random.Generator
    ) -> NDArray[np.int32]:
        """Draw an item for each positive, never the positive itself.

        Args:
            groups: int64 [S], for all of which ``can_draw`` holds.
            items: integer [S], item rows.
            rng: source of randomness.

        Returns:
            int32 [S]. Other items that the user took may be among them.
        """
        group_start, own_start, own, others = self._blocks(groups, items)
        places = group_start + rng.integers(0, others)
        places += np.where(places >= own_start, own, 0)
        return (self._keys[places] % self._item_count).astype(np.int32)

    def _blocks(self, groups: NDArray[np.int64], items: NDArray[np.integer]) -> tuple[NDArray[np.int64], ...]:
        """Start of the group, start and size of the item's events in it, and number of the others, int64 [S] each."""
        key = groups * self._item_count + items
        bounds = (groups * self._item_count, (groups + 1) * self._item_count, key, key + 1)
        group_start, group_end, own_start, own_end = (np.searchsorted(self._keys, bound) for bound in bounds)
        own = own_end - own_start
        return group_start, own_start, own, group_end - group_start - own
