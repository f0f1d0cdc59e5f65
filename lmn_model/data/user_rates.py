"""What each user's labels were before a moment: how many, and the share of positives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmn_model.data.histories import Histories

NAMES = ("labels of the user before", "rate of the user before")
"""Names of the two numbers, which no column can have taken: they are of no column."""
PRIOR = 10.0
"""So many labels of the overall rate stand beside those of a user, or of an item."""


class UserRates:
    """Counts of labels of each user up to any moment, as a counter in production would have them.

    Args:
        users: integer [E], row of the user of each labelled event.
        timestamps: int64 [E].
        labels: float [E], 0 or 1.
        user_count: U; users may have no labelled event.
        overall: the rate of positives in the training split, above 0 and below 1.
    """

    def __init__(
        self,
        users: NDArray[np.integer],
        timestamps: NDArray[np.int64],
        labels: NDArray[np.floating],
        *,
        user_count: int,
        overall: float,
    ) -> None:
        events = np.arange(len(users))
        self._histories = Histories(users, events, timestamps, user_count=user_count, padding_item=len(users))
        self._positives = np.append(0.0, np.cumsum(labels[self._histories.items], dtype=np.float64))
        self._overall = overall

    def before(self, users: NDArray[np.integer], timestamps: NDArray[np.int64]) -> NDArray[np.float32]:
        """Of the labels strictly before each moment.

        Args:
            users: integer [S], rows of users.
            timestamps: int64 [S].

        Returns:
            float32 [S, 2]: half of log(1 + labels), less 1; and the logit of their rate, with ten labels of the overall
            rate beside.
        """
        count, logit = self.counted(users, timestamps)
        return np.stack((np.log1p(count) / 2 - 1, logit), axis=1).astype(np.float32)

    def counted(
        self, users: NDArray[np.integer], timestamps: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The number of labels and the logit of their rate, [S] each; arguments as :meth:`before`."""
        starts, ends = self._histories.starts[users], self._histories.ends(users, timestamps)
        count, positives = ends - starts, self._positives[ends] - self._positives[starts]
        rate = (positives + PRIOR * self._overall) / (count + PRIOR)
        return count, np.log(rate) - np.log1p(-rate)
