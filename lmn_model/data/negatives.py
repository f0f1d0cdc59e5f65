"""Negatives for data without labels: items drawn by their popularity in the training split.

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
