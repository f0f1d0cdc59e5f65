"""Metrics on the test split by what was known before a sample: the user's events, and the age of the item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmn_model.data import Dataset, Split
from lmn_model.training.evaluation.metrics import auc, grouped_auc, log_loss

HISTORY_EDGES = (0, 10, 30, 100, 300, 1000)
"""Events of the user before a sample: 0 to 9, 10 to 29 and so on."""
AGE_EDGES = (0, 30)
"""Days since the item's first event of any user: less than 30, or more; an item without one before has no age."""
_DAY = 86_400 * 10**6

FloatArray = NDArray[np.floating[Any]]


def by_history(split: Split, scores: FloatArray, with_loss: bool = True) -> list[dict[str, Any]]:
    """Metrics of the samples of ``split`` by the number of the user's events before them; see :func:`by_ranges`."""
    seen = split.history_ends - split.tables.histories.starts[split.users]  # [S]
    return by_ranges(split, scores, seen, HISTORY_EDGES, with_loss)


def by_item_age(dataset: Dataset, split: Split, scores: FloatArray, with_loss: bool = True) -> list[dict[str, Any]]:
    """Metrics of the samples of ``split`` by the days since the item's first event; none where times are no dates.

    As :func:`by_ranges`. The first range, from None, has the items without an event before the sample.
    """
    if dataset.vocabularies.clock != "datetime":
        return []
    histories = split.tables.histories
    first = np.full(len(split.tables.items.ids), np.iinfo(np.int64).max)
    np.minimum.at(first, histories.items, histories.times)
    known = first[split.items] < split.timestamps
    age = np.where(known, (split.timestamps - np.where(known, first[split.items], 0)) / _DAY, -1)
    return by_ranges(split, scores, age, (None, *AGE_EDGES), with_loss)


def by_ranges(
    split: Split,
    scores: FloatArray,
    values: NDArray[Any],
    edges: Sequence[int | None],
    with_loss: bool = True,
) -> list[dict[str, Any]]:
    """AUC, GAUC and log loss of the samples of ``split`` in each range of ``values``.

    Args:
        split: S samples.
        scores: ``[S]``, logits, or any scores if ``with_loss`` is False.
        values: ``[S]``.
        edges: where ranges begin, ascending; None for no beginning.
        with_loss: whether the scores are logits, so that log loss is defined.

    Returns:
        For each range that has samples ``{"from", "to", "rows", "users", "auc", "gauc", "log_loss"}``; ``to`` is
        exclusive, None for no end. A metric that is not defined there is None.
    """
    found = []
    for low, high in zip(edges, (*edges[1:], None), strict=True):
        chosen = (values >= (-np.inf if low is None else low)) & (values < (np.inf if high is None else high))
        labels, scored, groups = split.labels[chosen], scores[chosen], split.groups[chosen]
        if not len(labels):
            continue
        both = 0 < labels.sum() < len(labels)
        found.append(
            {
                "from": low,
                "to": high,
                "rows": len(labels),
                "users": len(np.unique(groups)),
                "auc": auc(labels, scored) if both else None,
                "gauc": grouped_auc(labels, scored, groups),
                "log_loss": log_loss(labels, scored) if with_loss else None,
            }
        )
    return found
