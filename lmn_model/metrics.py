"""AUC, GAUC and log loss of click predictions, computed in float64 from logits.

Logits rank exactly as the probabilities do, but do not saturate: two probabilities that both round to 1.0 would tie.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]


class MetricError(ValueError):
    """A metric is not defined for these rows."""


def auc(labels: FloatArray, logits: FloatArray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting one half.

    Args:
        labels: ``[R]``, 0 or 1.
        logits: ``[R]``, any monotone score.

    Raises:
        MetricError: shapes differ, a logit is not finite, or only one class is present.
    """
    _check("auc", labels, logits)
    positives = int(labels.sum())
    if positives in (0, len(labels)):
        raise MetricError(f"auc: needs both classes, got {positives} positives in {len(labels)} rows")
    return float(roc_auc_score(labels, logits))


def grouped_auc(labels: FloatArray, logits: FloatArray, groups: IntArray) -> float | None:
    """GAUC: the AUC of each user, averaged with the user's number of rows as weight.

    Users with one class only have no AUC and are left out. The AUC of a user is the exact Mann-Whitney statistic
    ``(sum of the ranks of the positives - P (P + 1) / 2) / (P Q)`` with average ranks for ties, P positives and
    Q negatives; all users are handled in one sort.

    Args:
        labels: ``[R]``, 0 or 1.
        logits: ``[R]``.
        groups: ``[R]``, integer id of the user of each row.

    Returns:
        The average, or None where no user has both classes.

    Raises:
        MetricError: shapes differ or a logit is not finite.
    """
    _check("grouped_auc", labels, logits)
    if groups.shape != labels.shape:
        raise MetricError(f"grouped_auc: groups must have shape {labels.shape}, got {groups.shape}")
    if len(labels) == 0:
        return None
    order = np.lexsort((logits, groups))
    group, score, positive = groups[order], logits[order], labels[order] > 0.5
    row = np.arange(len(order))

    group_starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    group_of = np.repeat(np.arange(len(group_starts)), np.diff(np.r_[group_starts, len(row)]))
    tie_starts = np.flatnonzero(np.r_[True, (group[1:] != group[:-1]) | (score[1:] != score[:-1])])
    tie_sizes = np.diff(np.r_[tie_starts, len(row)])
    first = tie_starts - group_starts[group_of[tie_starts]]
    rank = np.repeat(first + (tie_sizes + 1) / 2, tie_sizes)  # average rank in the user's rows, from 1

    sizes = np.bincount(group_of).astype(np.float64)
    positives = np.bincount(group_of, weights=positive)
    rank_sums = np.bincount(group_of, weights=rank * positive)
    pairs = positives * (sizes - positives)
    both = pairs > 0
    if not both.any():
        return None
    each = (rank_sums[both] - positives[both] * (positives[both] + 1) / 2) / pairs[both]
    return float(np.average(each, weights=sizes[both]))


def log_loss(labels: FloatArray, logits: FloatArray) -> float:
    """Mean of ``log(1 + exp(z)) - y z``: the negative log-likelihood in nats, without clipping.

    Raises:
        MetricError: shapes differ, there are no rows, or a logit is not finite.
    """
    _check("log_loss", labels, logits)
    if len(labels) == 0:
        raise MetricError("log_loss: needs at least one row, got 0")
    z = logits.astype(np.float64)
    return float(np.mean(np.logaddexp(0.0, z) - labels * z))


def click_metrics(labels: FloatArray, logits: FloatArray, groups: IntArray) -> dict[str, float | None]:
    """The three metrics of a part of the data: ``{"auc", "gauc", "log_loss"}``.

    Raises:
        MetricError: as in :func:`auc`.
    """
    return {
        "auc": auc(labels, logits),
        "gauc": grouped_auc(labels, logits, groups),
        "log_loss": log_loss(labels, logits),
    }


def probabilities(logits: FloatArray) -> npt.NDArray[np.float64]:
    """``1 / (1 + exp(-z))`` in float64, without overflow for large negative logits."""
    z = logits.astype(np.float64)
    return np.asarray(np.exp(-np.logaddexp(0.0, -z)))


def _check(name: str, labels: FloatArray, logits: FloatArray) -> None:
    if labels.ndim != 1 or labels.shape != logits.shape:
        raise MetricError(f"{name}: labels and logits must be [R] alike, got {labels.shape} and {logits.shape}")
    bad = int(np.count_nonzero(~np.isfinite(logits)))
    if bad:
        raise MetricError(f"{name}: logits must be finite, got {bad} of {len(logits)} that are NaN or infinite")
