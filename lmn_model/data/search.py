"""Hard search in a history: the newest events that share a value with the candidate.

A window holds what is recent; this finds what is similar, however old. Events are sorted once by user, value and
position, so that the events of one user and value are a history of their own and a search is one binary search. The
cost of a batch does not grow with the length of the histories, and nothing at or after the sample can be found: the
search ends where its history does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmn_model.data.features import FeatureSpec, FeatureTable
from lmn_model.data.histories import Histories
from lmn_model.data.options import DataOptions
from lmn_model.data.schema import DataError


class HardSearch:
    """The events of all histories by user and value.

    Args:
        histories: the events of each user.
        values: int64 [R], the value of each item row. Equal values are found whatever they mean: values that share the
            id of the unseen find each other.
        window: S, the events to find.
    """

    def __init__(self, histories: Histories, values: NDArray[np.int64], window: int) -> None:
        self.window = window
        distinct, self._values = np.unique(values, return_inverse=True)  # open ids are large: pairs would overflow
        self._value_count = len(distinct)
        users = np.repeat(np.arange(len(histories.starts) - 1), np.diff(histories.starts))
        self._pairs, runs = np.unique(self._pair(users, histories.items), return_inverse=True)
        # The events of a pair are a history whose times are positions. The last one is empty, for all other pairs.
        self._runs = Histories(
            runs,
            histories.items,
            np.arange(len(runs)),
            user_count=len(self._pairs) + 1,
            padding_item=histories.padding_item,
        )

    def _pair(self, users: NDArray[np.integer], items: NDArray[np.integer]) -> NDArray[np.int64]:
        pairs: NDArray[np.int64] = users.astype(np.int64) * self._value_count + self._values[items]
        return pairs

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
        pairs = self._pair(users, items)
        runs = np.searchsorted(self._pairs, pairs)
        runs[np.append(self._pairs, -1)[runs] != pairs] = len(self._pairs)
        return self._runs.windows(runs, self._runs.ends(runs, ends), self.window)


def hard_search(
    histories: Histories, items: FeatureTable, features: FeatureSpec, options: DataOptions
) -> HardSearch | None:
    """The search by the item feature ``options.search_by``; None without one.

    Raises:
        DataError: if ``search_by`` is no item feature.
    """
    if options.search_by is None:
        return None
    names = [feature.name for feature in features.item]
    if options.search_by not in names:
        raise DataError(f"search_by: there is no item feature {options.search_by!r}; there are {', '.join(names)}")
    return HardSearch(histories, items.ids[:, names.index(options.search_by)], options.search_window)
