"""Means over seeds with their 95 % intervals, alone and paired by seed, without scipy.

With five seeds the quantile of Student's t decides: 2.78, where the normal distribution says 1.96. For whole degrees of
freedom its distribution function is a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4), so it is exact here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean over ``count`` values; ``half`` is half the width of its 95 % interval, None for a single value."""

    mean: float
    half: float | None
    count: int


def student_t_within(t: float, freedom: int) -> float:
    """``P(|T| <= t)`` for Student's t with ``freedom`` degrees of freedom.

    Args:
        t: at least 0.
        freedom: at least 1.

    Raises:
        ValueError: an argument is out of range.
    """
    if freedom < 1 or not t >= 0:
        raise ValueError(f"student_t_within: needs t >= 0 and freedom >= 1, got {t} and {freedom}")
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(1 if odd else 0, freedom - 1, 2):  # powers of the cosine up to freedom - 2
        total += term
        term *= cosine**2 * (k + 1) / (k + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def student_t_quantile(freedom: int, level: float = LEVEL) -> float:
    """The t with ``P(|T| <= t) = level``, to 1e-12 of itself.

    Raises:
        ValueError: ``freedom`` is below 1, or ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"student_t_quantile: level must be between 0 and 1, got {level}")
    low, high = 0.0, 1.0
    while student_t_within(high, freedom) < level:
        low, high = high, 2 * high
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if student_t_within(middle, freedom) < level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of ``values`` and half of its interval ``t s / sqrt(n)``.

    Raises:
        ValueError: there are no values.
    """
    count = len(values)
    if count == 0:
        raise ValueError("estimate: needs at least one value, got 0")
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Estimate(mean, student_t_quantile(count - 1) * math.sqrt(variance / count), count)


def paired_difference(ours: Mapping[int | None, float], theirs: Mapping[int | None, float]) -> Estimate | None:
    """Mean of ``ours - theirs`` over the seeds that both have.

    Args:
        ours: values by seed; the seed None, of a heuristic, holds for every seed.
        theirs: values by seed, likewise.

    Returns:
        The estimate, or None where no seed is common.
    """
    if None in ours and None in theirs:
        return estimate([ours[None] - theirs[None]])
    if None in ours:
        seeds = {*theirs}
    elif None in theirs:
        seeds = {*ours}
    else:
        seeds = {*ours} & {*theirs}
    if not seeds:
        return None
    return estimate([ours.get(seed, ours.get(None, 0.0)) - theirs.get(seed, theirs.get(None, 0.0)) for seed in seeds])
