"""Means over seeds and their intervals, against SciPy's own."""

from __future__ import annotations

import pytest
import scipy.stats

from benchmarks.study.statistics import estimate, paired_difference

VALUES = [0.1, 0.4, 0.35, 0.8]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_an_interval_is_that_of_student(count: int) -> None:
    values = VALUES[:count]
    center = sum(values) / count
    low, high = scipy.stats.t.interval(0.95, count - 1, loc=center, scale=scipy.stats.sem(values))
    found = estimate(values)
    assert found.half is not None
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert estimate([0.5]) == (0.5, None)
    with pytest.raises(ValueError, match="needs at least one value, got 0"):
        estimate([])


def test_differences_are_paired_by_seed() -> None:
    ours, theirs = dict(enumerate(VALUES)), {1: 0.1, 2: 0.3, 7: 9.0}
    assert paired_difference(ours, theirs) == estimate([0.4 - 0.1, 0.35 - 0.3])
    assert paired_difference(ours, {None: 0.5}) == estimate([value - 0.5 for value in VALUES])
    assert paired_difference({None: 0.5}, ours) == estimate([0.5 - value for value in VALUES])
    assert paired_difference({None: 0.75}, {None: 0.5}) == estimate([0.25])
    assert paired_difference(ours, {9: 0.5}) is None
