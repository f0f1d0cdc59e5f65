"""The search: which runs a tuning needs next, given what was measured so far.

It holds no state. The same scores give the same runs, whether they were measured in one go or by a tuning that was
interrupted, and however many ran at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.study.tune_axes import Axis, Point, Tune
from benchmarks.study.tuning.proposals import propose
from benchmarks.study.tuning.trials import BATCH, Trial, budget_of, is_stopped


class Run(NamedTuple):
    """One run of a trial: at ``point``, with ``seed``."""

    trial: int
    seed: int
    point: Point


def next_runs(axes: Mapping[str, Axis], default: Point, tune: Tune, found: Mapping[int, Trial]) -> list[Run]:
    """The runs that can start now; none when the tuning is complete.

    Args:
        axes: to search.
        default: the point of the first trial.
        tune: trials and seeds.
        found: the trials with scores, by number; those of the last batch may be missing.
    """
    first, *others = tune.seeds
    trials = budget_of(axes, default, tune.trials)
    for start in range(0, trials, BATCH):
        done = [found[number] for number in range(start)]
        points: dict[int, Point] = {}
        for number in range(start, min(start + BATCH, trials)):
            if number in found:
                points[number] = found[number].point
            elif number == 0:
                points[number] = default
            else:
                points[number] = propose(axes, done, list(points.values()), number)
        unscored = [number for number in points if number not in found or first not in found[number].scores]
        if unscored:
            return [Run(number, first, points[number]) for number in unscored]
        rest = [
            Run(number, seed, point)
            for number, point in points.items()
            if not is_stopped(found, number, trials, tune.seeds)
            for seed in others
            if seed not in found[number].scores
        ]
        if rest:
            return rest
    return []
