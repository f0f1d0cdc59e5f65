"""A baseline without any model: the click rates of the item and of the user.

A model is worth what it adds to them. The item's rate comes from the training split, the user's from its
samples strictly before the one that is scored, as a counter in production would have it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmn_model.data import Split
from lmn_model.data.user_rates import PRIOR, UserRates
from lmn_model.training.evaluation.metrics import click_metrics


def baseline_metrics(train: Split, between: Sequence[Split], split: Split) -> dict[str, float | None]:
    """AUC, GAUC and log loss of the two rates on a split.

    Args:
        train: the training split, of which the items' rates are.
        between: the splits between it and the one to score, in the order of time.
        split: the split to score, with rows of the same tables.

    Returns:
        ``{"auc", "gauc", "log_loss"}``.

    Raises:
        MetricError: if the split has one class only.
    """
    return click_metrics(split.labels, baseline_logits(train, between, split).astype(np.float32), split.groups)


def baseline_logits(train: Split, between: Sequence[Split], split: Split) -> NDArray[np.float64]:
    """``logit(item rate) + logit(user rate) - logit(overall rate)`` of each sample of a split, float64 [S]."""
    overall = float(train.labels.mean(dtype=np.float64))
    items = np.bincount(train.items, minlength=int(split.items.max(initial=-1)) + 1).astype(np.float64)
    positives = np.bincount(train.items, weights=train.labels, minlength=len(items))
    item_rate = (positives + PRIOR * overall) / (items + PRIOR)
    users, times, labels = (
        np.concatenate([getattr(each, name) for each in (train, *between, split)])
        for name in ("users", "timestamps", "labels")
    )
    rates = UserRates(users, times, labels, user_count=int(users.max(initial=-1)) + 1, overall=overall)
    _, of_user = rates.counted(split.users, split.timestamps)
    return _logit(item_rate[split.items]) + of_user - _logit(np.array(overall))


def _logit(rate: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.log(rate) - np.log1p(-rate)
    return result
