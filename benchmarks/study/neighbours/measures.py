"""What neighbours have in common, by the number of events and against chance, and a few of them by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.study.neighbours.reading import Cosines, IntArray, Journey
from lmn_model.data import DataError
from lmn_model.setting_types import SettingsError

NEAR = 10
"""Neighbours that count for a measure."""
PRODUCT_EDGES, HOUSEHOLD_EDGES = (5, 20, 100), (10, 100, 500)
"""Products and households with fewer events than the first are skipped, as neighbours too."""
MAX_QUERIES = 2_000
"""Of more products in a range a random sample is measured."""
_CHUNK = 1_000


def product_shares(journey: Journey, seed: int = 0) -> list[dict[str, Any]]:
    """The mean share of the nearest products in the same category and in the same department.

    Returns:
        For each range of :data:`PRODUCT_EDGES` with a product ``{"from", "to", "products", "measured", "shares"}``,
        where ``shares`` has ``{"category", "department"}`` by the name of a similarity, and by ``"random"``, any other
        product, and ``"popularity"``, one drawn by its events, both exact.
    """
    candidates, events = _products(journey), journey.events
    rng, found = np.random.default_rng(seed), []
    for low, high, members in _ranges(candidates, events, PRODUCT_EDGES):
        ids = np.sort(rng.permutation(members)[:MAX_QUERIES])
        near = {each.name: nearest(each.products, ids, candidates, NEAR)[0] for each in journey.similarities}
        shares: dict[str, dict[str, float]] = {name: {} for name in (*near, "random", "popularity")}
        for kind, of in (("category", journey.categories), ("department", journey.departments)):
            for name, others in near.items():
                shares[name][kind] = float((of[others] == of[ids][:, None]).mean())
            for name, weights in (("random", np.ones_like(events)), ("popularity", events)):
                within = np.bincount(of[candidates], weights[candidates])[of[ids]] - weights[ids]
                shares[name][kind] = float((within / (weights[candidates].sum() - weights[ids])).mean())
        found.append({"from": low, "to": high, "products": len(members), "measured": len(ids), "shares": shares})
    return found


def household_overlaps(journey: Journey) -> list[dict[str, Any]]:
    """The mean cosine of a household's shares of categories, less the mean household's, and those of the nearest.

    Returns:
        For each range of :data:`HOUSEHOLD_EDGES` with a household ``{"from", "to", "households", "overlaps"}``, where
        ``overlaps`` has a number by the name of a similarity, for ``"random"``, any other household, and for
        ``"best"``, the households whose cosine is largest.
    """
    candidates, cosines = _households(journey), category_cosines(journey)
    others, found = len(candidates) - 1, []
    for low, high, members in _ranges(candidates, journey.counts.sum(1), HOUSEHOLD_EDGES):
        own = cosines[np.ix_(members, candidates)]
        near = {
            each.name: nearest(each.households, members, candidates, NEAR)[0]
            for each in journey.similarities
            if each.households is not None
        }
        overlaps = {name: float(cosines[members[:, None], ids].mean()) for name, ids in near.items()}
        overlaps["random"] = float(((own.sum(1) - 1) / others).mean())
        overlaps["best"] = float(np.sort(own, axis=1)[:, -1 - min(NEAR, others) : -1].mean())
        found.append({"from": low, "to": high, "households": len(members), "overlaps": overlaps})
    return found


def category_cosines(journey: Journey) -> NDArray[np.float64]:
    """Cosines ``[H + 1, H + 1]`` of the households' shares of categories, less the mean over those compared."""
    shares = journey.counts / np.maximum(1, journey.counts.sum(1, keepdims=True))
    shares -= shares[_households(journey)].mean(0)
    shares /= np.maximum(np.linalg.norm(shares, axis=1, keepdims=True), 1e-12)
    return np.asarray(shares @ shares.T)


def choose_products(journey: Journey, texts: Sequence[str] | None, count: int = 8) -> list[int]:
    """Ids of the most bought product for each text in its type or category, or of the first ``count`` departments.

    Raises:
        SettingsError: no product has a text.
    """
    ids = _products(journey)
    ids = ids[np.argsort(-journey.events[ids], kind="stable")]
    if texts is None:
        firsts = np.unique(journey.departments[ids], return_index=True)[1]
        return [int(each) for each in ids[np.sort(firsts)[:count]]]
    chosen = []
    names = [" | ".join(str(name) for name in journey.products.row(each - 1)).casefold() for each in ids]
    for text in texts:
        found = [each for each, name in zip(ids, names, strict=True) if text.casefold() in name]
        if not found:
            raise SettingsError(f"--product: no product with {PRODUCT_EDGES[0]} events or more is called {text!r}")
        chosen.append(int(found[0]))
    return list(dict.fromkeys(chosen))


def middle_households(journey: Journey, count: int = 3) -> list[int]:
    """Ids of the ``count`` households in the middle by their number of events."""
    ids = _households(journey)
    ids = ids[np.argsort(journey.counts.sum(1)[ids], kind="stable")]
    first = max(0, (len(ids) - count) // 2)
    return [int(each) for each in ids[first : first + count]]


def near_products(journey: Journey, cosines: Cosines, product: int, count: int = 5) -> list[tuple[int, float]]:
    """Ids and cosines of the nearest products."""
    return _one(cosines, product, _products(journey), count)


def near_households(journey: Journey, cosines: Cosines, household: int, count: int = 3) -> list[tuple[int, float]]:
    """Ids and cosines of the nearest households."""
    return _one(cosines, household, _households(journey), count)


def common_categories(journey: Journey, first: int, second: int, most: int = 5) -> list[tuple[str, float]]:
    """Categories that both households buy at least twice as often as all do, and three times each.

    Returns:
        Names and lifts, the smaller of the two, largest first. A lift is the share of the category in the events of the
        household, over that in all events.
    """
    counts = journey.counts[[first, second]].astype(np.float64)
    total = journey.counts.sum(0) / journey.counts.sum()
    lifts = (counts / counts.sum(1, keepdims=True) / np.maximum(total, 1e-12)).min(0)
    lifts[(counts.min(0) < 3) | (lifts < 2)] = 0
    lifts[0] = 0  # events without a category
    order = [each for each in np.argsort(-lifts, kind="stable")[:most] if lifts[each]]
    return [(journey.category_names[each], float(lifts[each])) for each in order]


def nearest(cosines: Cosines, ids: IntArray, candidates: IntArray, count: int) -> tuple[IntArray, NDArray[np.float32]]:
    """The ``count`` candidates with the largest cosine to each id, but itself: ids and cosines, ``[R, count]`` each."""
    of, values = [], []
    others = torch.from_numpy(candidates)
    for chunk in torch.from_numpy(ids).split(_CHUNK):
        each = cosines(chunk, others).cpu().masked_fill(chunk[:, None] == others, -torch.inf)
        top = each.topk(min(count, len(candidates) - 1), dim=1)
        of.append(others[top.indices].numpy())
        values.append(top.values.numpy())
    return np.concatenate(of), np.concatenate(values)


def _one(cosines: Cosines, each: int, candidates: IntArray, count: int) -> list[tuple[int, float]]:
    ids, values = nearest(cosines, np.array([each]), candidates, count)
    return [(int(one), float(value)) for one, value in zip(ids[0], values[0], strict=True)]


def _products(journey: Journey) -> IntArray:
    return _enough(np.where(journey.categories > 0, journey.events, 0), PRODUCT_EDGES[0], "products")


def _households(journey: Journey) -> IntArray:
    return _enough(journey.counts.sum(1), HOUSEHOLD_EDGES[0], "households")


def _enough(events: IntArray, low: int, what: str) -> IntArray:
    ids = np.flatnonzero(events >= low)
    if len(ids) < 2:
        raise DataError(f"neighbours compares {what} and needs two with {low} events before the test split")
    return ids


def _ranges(ids: IntArray, events: IntArray, edges: tuple[int, ...]) -> list[tuple[int, int | None, IntArray]]:
    place = np.searchsorted(edges, events[ids], "right") - 1
    ranges = zip(edges, (*edges[1:], None), strict=True)
    return [(low, high, ids[place == n]) for n, (low, high) in enumerate(ranges) if (place == n).any()]
