"""Heuristics without training, by the names that study files give them.

==============================  ============================================================================
``popularity``                  training-time events of the candidate
``item_all``, ``item_50``       events of the candidate in the user's history, or in its newest 50
``category_all``, ...           the same for an item feature: events with the candidate's value
``item_and_category_all``       the item's count, ties by the feature's, as a share of the events counted
``cooccurrence_item_64``        lift of (user group, item group) in a table of 64 x 64 counts, random groups
``cooccurrence_category_all``   the same with items grouped by a feature; ``all``: every id is a group
==============================  ============================================================================
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.counting import CooccurrenceCounts, count_in_history, count_item_and_feature, popularity
from lmn_model.data import DataError, Dataset, Split

ITEM, ALL = "item", "all"
POPULARITY, COUNT, ITEM_AND, COOCCURRENCE = "popularity", "count", "item_and", "cooccurrence"


class Heuristic(NamedTuple):
    """A parsed name: ``kind`` is popularity, count, item_and or cooccurrence; ``size`` is None for ``all``."""

    kind: str
    feature: str
    size: int | None


def parse_heuristic(name: str) -> Heuristic:
    """Split a heuristic's name into its parts.

    Raises:
        ValueError: there is no heuristic of this name.
    """
    if name == POPULARITY:
        return Heuristic(POPULARITY, ITEM, None)
    rest, _, size = name.rpartition("_")
    if rest and (size == ALL or (size.isdigit() and int(size) > 0)):
        number = None if size == ALL else int(size)
        for kind in (ITEM_AND, COOCCURRENCE):
            if rest.startswith(f"{kind}_") and rest != f"{kind}_":
                return Heuristic(kind, rest.removeprefix(f"{kind}_"), number)
        return Heuristic(COUNT, rest, number)
    raise ValueError(f"there is no heuristic {name!r}; it is popularity, or item, a feature, item_and_FEATURE, "
                     "cooccurrence_item or cooccurrence_FEATURE, followed by _all or a number such as _50")  # fmt: skip


def score(name: str, dataset: Dataset, split: Split) -> NDArray[np.float64]:
    """Scores of the samples of ``split``, float64 ``[S]``, which rank them and are no probabilities.

    Raises:
        ValueError: there is no heuristic of this name.
        DataError: the items have no such feature.
    """
    kind, feature, size = parse_heuristic(name)
    if kind == POPULARITY:
        return popularity(split, dataset.train)
    column = None
    if feature != ITEM or kind == ITEM_AND:
        features = [each.name for each in dataset.features.item]
        if feature not in features:
            raise DataError(f"heuristic {name!r}: no item feature {feature!r}; they are {', '.join(features)}")
        column = features.index(feature)
    if kind == COOCCURRENCE:
        return CooccurrenceCounts(dataset.train, size, feature=column).lift(split)
    if column is not None and kind == ITEM_AND:
        return count_item_and_feature(split, column, size)
    return count_in_history(split, size, column)
