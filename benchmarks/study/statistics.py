"""Means over seeds with 95 % confidence intervals of Student's t, unpaired and paired by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats

LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean; ``half`` is half the width of its interval, None for a single value."""

    mean: float
    half: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of ``values`` and half of its interval ``t s / sqrt(n)``.

    Raises:
        ValueError: there are no values.
    """
    count = len(values)
    if count == 0:
        raise ValueError("estimate: needs at least one value, got 0")
    mean = statistics.fmean(values)
    if count == 1:
        return Estimate(mean, None)
    quantile = float(stats.t.ppf((1 + LEVEL) / 2, count - 1))
    return Estimate(mean, quantile * statistics.stdev(values) / math.sqrt(count))


def paired_difference(ours: Mapping[int | None, float], theirs: Mapping[int | None, float]) -> Estimate | None:
    """Mean of ``ours - theirs`` over the seeds that both have.

    Args:
        ours: values by seed; the seed None, of a heuristic, holds for every seed.
        theirs: values by seed, likewise.

    Returns:
        The estimate, or None where no seed is common.
    """
    pairs = [(ours.get(seed, ours.get(None)), theirs.get(seed, theirs.get(None))) for seed in {*ours, *theirs}]
    differences = [our - their for our, their in pairs if our is not None and their is not None]
    return estimate(differences) if differences else None
