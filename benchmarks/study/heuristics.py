"""Heuristics that learn nothing, by the names that study files call them.

=============================  =============================================================================
``popularity``                 training-time events of the candidate
``item_all``, ``item_50``      events of the candidate in the history, or in its newest 50
``category_all``, ...          the same for an item feature: events with the candidate's value
``item_and_category_all``      the item's count, ties by the feature's, as a share of the events looked at
``cells_item_64``, ``_all``    lift of the cell in a memory of 64 x 64 counts, items thrown into groups at random
``cells_category_64``          the same, items in groups by a feature
=============================  =============================================================================
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.counting import CountingMemory, count_in_history, count_item_and_feature, popularity
from lmn_model.data import DataError, Dataset, Split

ITEM, ALL = "item", "all"


class Heuristic(NamedTuple):
    """A name taken apart: ``kind`` is popularity, count, item_and or cells; ``size`` is None for ``all``."""

    kind: str
    feature: str
    size: int | None


def parse_heuristic(name: str) -> Heuristic:
    """Take a heuristic's name apart.

    Raises:
        ValueError: the name is none.
    """
    if name == "popularity":
        return Heuristic("popularity", ITEM, None)
    rest, _, size = name.rpartition("_")
    if rest and (size == ALL or (size.isdigit() and int(size) > 0)):
        number = None if size == ALL else int(size)
        for kind in ("item_and", "cells"):
            if rest.startswith(f"{kind}_") and rest != f"{kind}_":
                return Heuristic(kind, rest.removeprefix(f"{kind}_"), number)
        return Heuristic("count", rest, number)
    raise ValueError(f"there is no heuristic {name!r}; it is popularity, or item, a feature, item_and_FEATURE, "
                     "cells_item or cells_FEATURE, followed by _all or a number such as _50")  # fmt: skip


def score(name: str, dataset: Dataset, split: Split) -> NDArray[np.float64]:
    """Scores of the samples of ``split``, float64 ``[S]``, which rank them and are no probabilities.

    Raises:
        ValueError: the name is no heuristic.
        DataError: the items have no such feature.
    """
    kind, feature, size = parse_heuristic(name)
    if kind == "popularity":
        return popularity(split, dataset.train)
    column = None
    if feature != ITEM or kind == "item_and":
        features = [each.name for each in dataset.features.item]
        if feature not in features:
            raise DataError(f"heuristic {name!r}: no item feature {feature!r}; they are {', '.join(features)}")
        column = features.index(feature)
    if kind == "cells":
        return CountingMemory(dataset.train, size, feature=column).lift(split)
    if column is not None and kind == "item_and":
        return count_item_and_feature(split, column, size)
    return count_in_history(split, size, column)
