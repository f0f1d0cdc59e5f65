"""Grids of test cases: all combinations, of which the fast tier runs a subset that holds every pair of values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Any

import pytest


def grid(**axes: Sequence[Any]) -> pytest.MarkDecorator:
    """Parametrize a test over the product of ``axes``; cases beyond a pairwise cover are marked ``slow``.

    Most faults come from one value or from two together, so the cover finds them with a fraction of the cases.

    Args:
        axes: values by argument name. With one or two axes every case is in the fast tier.
    """
    sizes = [range(len(values)) for values in axes.values()]
    fast = set(_cover(sizes))
    cases = [
        pytest.param(
            *(values[place] for values, place in zip(axes.values(), places, strict=True)),
            marks=() if places in fast else pytest.mark.slow,
        )
        for places in product(*sizes)
    ]
    return pytest.mark.parametrize(list(axes), cases)


def _cover(sizes: Sequence[range]) -> Iterator[tuple[int, ...]]:
    """Cases, chosen greedily, that together hold each pair of values of two axes."""
    cases = list(product(*sizes))
    if len(sizes) < 3:
        yield from cases
        return
    missing = {pair for case in cases for pair in _pairs(case)}
    while missing:
        best = max(cases, key=lambda case: len(missing & _pairs(case)))
        missing -= _pairs(best)
        yield best


def _pairs(case: tuple[int, ...]) -> set[tuple[tuple[int, int], tuple[int, int]]]:
    return set(combinations(enumerate(case), 2))
