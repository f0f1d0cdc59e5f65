"""AUC, GAUC and log loss of click predictions, computed in float64 from logits.

Logits rank exactly as the probabilities do, but do not saturate: two probabilities that both round to 1.0 would tie.
AUC and GAUC are one computation, the exact Mann-Whitney statistic ``(sum of the ranks of the positives - P (P + 1) / 2)
/ (P Q)`` with P positives, Q negatives and average ranks for ties; GAUC has a group a user, AUC a single one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
    statistic, _ = _mann_whitney(labels, logits, np.zeros(len(labels), dtype=np.int64))
    return float(statistic[0])


def grouped_auc(labels: FloatArray, logits: FloatArray, groups: IntArray) -> float | None:
    """GAUC: the AUC of each user, averaged with the user's number of rows as weight.

    Users with one class only have no AUC and are skipped. All users are handled in one sort.

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
    statistics, sizes = _mann_whitney(labels, logits, groups)
    both = ~np.isnan(statistics)
    return float(np.average(statistics[both], weights=sizes[both])) if both.any() else None


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
    """The three metrics of a split: ``{"auc", "gauc", "log_loss"}``.

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


def _mann_whitney(labels: FloatArray, logits: FloatArray, groups: IntArray) -> tuple[FloatArray, FloatArray]:
    """The AUC of each group, NaN where it has one class only, and the group's number of rows; both float64 ``[G]``."""
    order = np.lexsort((logits, groups))
    group, score, positive = groups[order], logits[order], labels[order] > 0.5
    group_starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    sizes = np.diff(np.r_[group_starts, len(group)])
    group_of = np.repeat(np.arange(len(sizes)), sizes)
    tie_starts = np.flatnonzero(np.r_[True, (group[1:] != group[:-1]) | (score[1:] != score[:-1])])
    tie_sizes = np.diff(np.r_[tie_starts, len(group)])
    first = tie_starts - group_starts[group_of[tie_starts]]
    rank = np.repeat(first + (tie_sizes + 1) / 2, tie_sizes)  # from 1 in each group; equal scores share their mean rank

    positives = np.bincount(group_of, weights=positive)
    rank_sums = np.bincount(group_of, weights=rank * positive)
    pairs = positives * (sizes - positives)
    pairs[pairs == 0] = np.nan
    return (rank_sums - positives * (positives + 1) / 2) / pairs, sizes.astype(np.float64)


def _check(name: str, labels: FloatArray, logits: FloatArray) -> None:
    if labels.ndim != 1 or labels.shape != logits.shape:
        raise MetricError(f"{name}: labels and logits must be [R] alike, got {labels.shape} and {logits.shape}")
    bad = int(np.count_nonzero(~np.isfinite(logits)))
    if bad:
        raise MetricError(f"{name}: logits must be finite, got {bad} of {len(logits)} that are NaN or infinite")
