"""Trials of a tuning, which of them stop after their first seed, and which is best.

A trial scores the mean validation AUC over its seeds. Trials are decided in batches of :data:`BATCH`. All run their
first seed, and those whose score is at least the median of all first seeds so far run the others: successive halving
with two rounds (Jamieson and Talwalkar, 2016). The best trial is lost only if one seed moves it below the median trial,
and then its mean over seeds is hardly the best. The first trial has the settings of the study file. It runs all seeds,
so that what the tuning gains is measured.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.study.tune_axes import Axis, Point

BATCH = 2
"""Trials that are proposed together. It is fixed, so that processes at a time do not change what is proposed."""


@dataclass(frozen=True)
class Trial:
    """A point and what was measured there.

    Args:
        point: a value for every axis.
        scores: validation AUC by seed, NaN for a run that failed; without the seeds that have not run.
    """

    point: Point
    scores: Mapping[int, float]

    @property
    def failed(self) -> bool:
        """Whether a run of it failed, which makes it the worst."""
        return any(math.isnan(score) for score in self.scores.values())

    def mean(self, seeds: Sequence[int]) -> float | None:
        """Mean score; None unless all of ``seeds`` have run and none failed."""
        if self.failed or not {*seeds} <= {*self.scores}:
            return None
        return statistics.fmean(self.scores[seed] for seed in seeds)


def budget_of(axes: Mapping[str, Axis], default: Point, trials: int) -> int:
    """How many trials there are: ``trials``, or the number of all points where that is less.

    Args:
        axes: to search.
        default: the point of the first trial, which need not lie on the axes.
        trials: of the study file.
    """
    sizes = [axis.size for axis in axes.values()]
    if None in sizes:
        return trials
    others = any(default[name] not in axis for name, axis in axes.items())
    return min(trials, math.prod(size for size in sizes if size is not None) + others)


def threshold(trials: Mapping[int, Trial], number: int, budget: int, first_seed: int) -> float:
    """The score that trial ``number`` must reach with the first seed: the median up to the end of its batch.

    A failed run counts as 0, the worst AUC.
    """
    end = min((number // BATCH + 1) * BATCH, budget)
    scores = (trials[each].scores[first_seed] for each in range(end))
    return statistics.median(0.0 if math.isnan(score) else score for score in scores)


def is_stopped(trials: Mapping[int, Trial], number: int, budget: int, seeds: Sequence[int]) -> bool:
    """Whether trial ``number`` runs no further seed; every trial of its batch must have run the first.

    Args:
        trials: by number.
        number: of the trial.
        budget: trials of the tuning.
        seeds: of the tuning.
    """
    trial = trials[number]
    if trial.failed:
        return True
    if number == 0 or trial.mean(seeds) is not None:
        return False
    return trial.scores[seeds[0]] < threshold(trials, number, budget, seeds[0])


def best_trial(trials: Mapping[int, Trial], seeds: Sequence[int]) -> int | None:
    """Number of the trial with the highest mean, the first of equals; None if none has run all seeds."""
    means = {number: mean for number in sorted(trials) if (mean := trials[number].mean(seeds)) is not None}
    return max(means, key=means.__getitem__) if means else None


def decided(trials: Mapping[int, Trial], budget: int, seeds: Sequence[int]) -> list[int]:
    """Numbers of the trials that run no more, in order: with all their seeds, stopped or failed."""
    found: list[int] = []
    for start in range(0, budget, BATCH):
        batch = range(start, min(start + BATCH, budget))
        if any(number not in trials or seeds[0] not in trials[number].scores for number in batch):
            break
        found += [
            number
            for number in batch
            if trials[number].mean(seeds) is not None or is_stopped(trials, number, budget, seeds)
        ]
    return found
