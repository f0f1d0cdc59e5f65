"""The points that a tuning tries, proposed by Bayesian optimisation with a Gaussian process, of Optuna.

A tuning has few trials, and each is noisy over seeds. A Gaussian process models all axes together, so that it finds
settings that are good only in combination, and it estimates the noise. On random surfaces over the axes of
``complete_journey.toml`` twelve trials ended 0.002 of AUC below the best point on average, and twelve of Optuna's
default, the tree-structured Parzen estimator, 0.004. A search of one axis after the other ended 0.008 below it.

Every proposal has a sampler with a seed of its own, the number of the trial, and depends on nothing but that number and
the trials before. So a search that was interrupted proposes what it would have, and models with the same axes start
from the same points.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.trial import TrialState, create_trial

from benchmarks.study.tune_axes import Axis, Choices, Point
from benchmarks.study.tuning.trials import Trial

STARTUP_TRIALS = 4
"""Trials before the model decides; the first has the settings of the file, the others are random."""
MODEL_ATTEMPTS, ATTEMPTS = 10, 1000
"""Draws of a point that was not tried before: the model's, then up to all draws random ones."""
DIGITS = 3
"""Significant digits of a number from a range."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


def propose(axes: Mapping[str, Axis], done: Sequence[Trial], open_points: Sequence[Point], number: int) -> Point:
    """The point of trial ``number``, one that is not among the others.

    Args:
        axes: to search.
        done: the trials of earlier batches, in order.
        open_points: those of earlier trials of the same batch, whose scores are not used yet.
        number: of the trial.

    Raises:
        RuntimeError: no further point was found; the axes are too narrow for the trials.
    """
    distributions = {name: _distribution(axis) for name, axis in axes.items()}
    study = optuna.create_study(direction="maximize")
    measured = [trial for trial in done if _lies_on(axes, trial.point)]
    for trial, value in zip(measured, _values(measured), strict=True):
        params = _encode(axes, trial.point)
        study.add_trial(create_trial(params=params, distributions=distributions, value=value))
    for point in open_points:
        if _lies_on(axes, point):
            params = _encode(axes, point)
            study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=distributions))
    tried = [*(trial.point for trial in done), *open_points]
    for attempt in range(ATTEMPTS):
        seed = number * ATTEMPTS + attempt
        study.sampler = _sampler(seed) if attempt < MODEL_ATTEMPTS else RandomSampler(seed=seed)
        # A point that was tried stays open in this study, so that the model avoids it in the next draw.
        point = _decode(axes, study.ask(distributions).params)
        if point not in tried:
            return point
    raise RuntimeError(f"trial {number}: there is no point that was not tried among {ATTEMPTS} draws")


def _sampler(seed: int) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS, deterministic_objective=False)


def _values(trials: Sequence[Trial]) -> list[float]:
    """What the model is fitted to: the mean, of a stopped trial the first score, and of a failed one the lowest."""
    values = [statistics.fmean(trial.scores.values()) for trial in trials if not trial.failed]
    lowest = min(values, default=0.0)
    return [lowest if trial.failed else statistics.fmean(trial.scores.values()) for trial in trials]


def _lies_on(axes: Mapping[str, Axis], point: Point) -> bool:
    return all(point[name] in axis for name, axis in axes.items())


def _distribution(axis: Axis) -> BaseDistribution:
    if isinstance(axis, Choices):  # by place: values may be lists, and those in order are steps of a scale
        places = range(len(axis.values))
        return IntDistribution(0, places[-1]) if axis.is_ordered else CategoricalDistribution(places)
    if axis.is_integer:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _encode(axes: Mapping[str, Axis], point: Point) -> dict[str, Any]:
    return {
        name: axis.values.index(point[name]) if isinstance(axis, Choices) else point[name]
        for name, axis in axes.items()
    }


def _decode(axes: Mapping[str, Axis], params: Mapping[str, Any]) -> dict[str, Any]:
    point: dict[str, Any] = {}
    for name, axis in axes.items():
        value = params[name]
        if isinstance(axis, Choices):
            point[name] = axis.values[value]
        elif axis.is_integer:
            point[name] = value
        else:
            point[name] = min(max(float(f"{value:.{DIGITS}g}"), axis.low), axis.high)
    return point
