"""What a factored memory stores about a feature of the items, measured beside the events themselves.

A pair (category, user) has one place and one bound code, so the memory can be asked about every pair there is, whether
it was ever written or not. The answer, the projection on the bound code, is 0 where nothing is kept and towards 1 where
all of the code is there. What truly happened before the test part is counted from the events, and the two are compared:
pair by pair, and as profiles of users. A control asks in each case about another user than the one that is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.contents.reading import Contents, FloatArray, IntArray
from lmn_model.data import DataError
from lmn_model.setting_types import SettingsError
from lmn_model.training.evaluation.metrics import auc, grouped_auc
from lmn_model.wording import did_you_mean

TOP = 5
COUNT_EDGES = (0, 1, 2, 3, 5, 10, 20, 50)
"""Pairs are told apart by their events: 0, 1, 2, 3 to 4 and so on."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FALSE_ALARMS = 0.05
"""Share of the pairs without an event that may lie above the threshold."""
_USERS = 512


class Neighbour(NamedTuple):
    """A user near another: row in ``Contents.users``, cosine of the memory's profiles, cosine of the true counts."""

    user: int
    memory: float
    truth: float


def threshold_of(contents: Contents) -> float:
    """The projection that only a twentieth of the pairs without an event exceed; above it the memory says yes."""
    never = contents.projections[contents.counts == 0]
    return float(np.quantile(never, 1 - FALSE_ALARMS)) if len(never) else 0.0


def describe_usage(contents: Contents) -> dict[str, Any]:
    """How full the cells are: share in use, quantiles of the lengths, and what the fullest hundredth holds."""
    lengths = contents.lengths.ravel()
    used = np.sort(lengths[lengths > 0])
    top = lengths.size // 100 or 1
    return {
        "cells": lengths.size,
        "in_use": len(used) / lengths.size,
        "sub_keys_in_use": [int((contents.lengths > 0).any(axis=axis).sum()) for axis in (1, 0)],
        "length": {f"{q:g}": float(np.quantile(used, q)) for q in (*QUANTILES, 1.0)} if len(used) else {},
        "share_of_fullest_hundredth": float(used[-top:].sum() / used.sum()) if len(used) else None,
    }


def choose_categories(contents: Contents, names: Sequence[str] | None = None, most: int = 8) -> list[int]:
    """Columns of the named categories, or of the ``most`` with the most events.

    Args:
        contents: where they are.
        names: in any case; one may be several names with commas between them.
        most: how many, without names.

    Raises:
        SettingsError: there is no such category.
    """
    if not names:
        order = np.argsort(-contents.counts.sum(axis=0, dtype=np.int64), kind="stable")
        return [int(column) for column in order[:most]]
    columns = {name.casefold(): column for column, name in reversed(list(enumerate(contents.category_names)))}
    chosen = []
    for text in names:
        # A name may hold a comma itself: the whole text goes first.
        whole = text.strip().casefold() in columns
        for name in [text.strip()] if whole else [part.strip() for part in text.split(",") if part.strip()]:
            if name.casefold() not in columns:
                close = did_you_mean(name.casefold(), columns)
                raise SettingsError(f"--category: {contents.feature} has no value {name!r}{close}")
            chosen.append(columns[name.casefold()])
    return list(dict.fromkeys(chosen))


def describe_categories(contents: Contents, chosen: Sequence[int], threshold: float) -> list[dict[str, Any]]:
    """Where categories lie, with whom they share their sub-key, and of how many users the memory holds them."""
    found = []
    for column in chosen:
        key = int(contents.category_keys[column])
        same = np.flatnonzero(contents.category_keys == key)
        recalled = contents.projections[:, column] > threshold
        truly = contents.counts[:, column] > 0
        found.append(
            {
                "name": contents.category_names[column],
                "sub_key": key,
                "shares_with": [contents.category_names[other] for other in same if other != column],
                "members_of_sub_key": {name: int(members[key]) for name, members in contents.members.items()},
                "cells_in_use": int((contents.lengths[key] > 0).sum()),
                "users": int(truly.sum()),
                "recalled": int(recalled.sum()),
                "rightly": int((recalled & truly).sum()),
                "cells_recalled": len(np.unique(contents.user_keys[recalled])),
            }
        )
    return found


def describe_recall(contents: Contents, threshold: float, seed: int = 0) -> dict[str, Any]:
    """Projections against true counts over all pairs, and against the counts of another user as a control.

    Returns:
        ``{"pairs", "with_event", "own": {"spearman", "auc", "auc_within_user"}, "other": the same, "threshold",
        "by_count": [{"from", "to", "pairs", "quantiles", "above_threshold"}]}``; ``to`` is exclusive, None for no end.
        A metric that is not defined is None.
    """
    counts, projections = contents.counts, contents.projections
    other = _another(len(counts), seed)
    by_count = []
    for low, high in zip(COUNT_EDGES, (*COUNT_EDGES[1:], None), strict=True):
        chosen = projections[(counts >= low) & (counts < (np.inf if high is None else high))]
        if len(chosen):
            by_count.append(
                {
                    "from": low,
                    "to": high,
                    "pairs": len(chosen),
                    "quantiles": [float(value) for value in np.quantile(chosen, QUANTILES)],
                    "above_threshold": float((chosen > threshold).mean()),
                }
            )
    return {
        "pairs": counts.size,
        "with_event": int((counts > 0).sum()),
        "own": _agreement(counts, projections),
        "other": _agreement(counts, projections[other]),
        "threshold": threshold,
        "by_count": by_count,
    }


def describe_profiles(contents: Contents, examples: int = 3, near: int = 3, seed: int = 0) -> dict[str, Any]:
    """Users by the profile that the memory has of them: their top categories, and who is near to whom.

    A profile is the projections on all categories. Top categories are looked at for users with TOP categories or more.

    Returns:
        ``{"users", "overlap", "overlap_other", "overlaps": [TOP + 1], "overlaps_other", "nearest": {...},
        "percentiles": {"all": [U], "elsewhere": [U]}, "examples": [...]}``. ``overlap`` is the mean share of the true
        top categories that the memory recalls, ``overlap_other`` that of another user's; both are None where no user
        has enough categories. ``overlaps`` counts users by how many are recalled. A percentile is the share of all
        other users that are less like the user, by true counts, than the nearest by memory, of all or of those
        elsewhere, which have another best sub-key: users in the same cells read a little of each other.
    """
    counts = contents.counts
    true_top, recalled_top = _top(counts), _top(contents.projections)
    judged = (counts > 0).sum(axis=1) >= TOP
    other = _another(len(counts), seed)
    own, others = (
        (true_top[:, :, None] == top[:, None]).any(-1).sum(-1)[judged] for top in (recalled_top, recalled_top[other])
    )
    nearest, percentiles, similar = _nearest(contents, near, seed)
    alike, elsewhere = percentiles["all"], percentiles["elsewhere"]
    mates = np.array([contents.user_keys[row] == contents.user_keys[found[0].user] for row, found in nearest.items()])
    sharers = np.bincount(contents.user_keys)[contents.user_keys] - 1
    by_events = np.flatnonzero(judged)[np.argsort(-counts.sum(axis=1, dtype=np.int64)[judged], kind="stable")]
    places = [int(len(by_events) * (2 * n + 1) / (2 * examples)) for n in range(examples)]
    shown = list(dict.fromkeys(int(by_events[place]) for place in places)) if len(by_events) else []
    return {
        "users": int(judged.sum()),
        "overlap": float(own.mean() / TOP) if len(own) else None,
        "overlap_other": float(others.mean() / TOP) if len(own) else None,
        "overlaps": np.bincount(own, minlength=TOP + 1).tolist(),
        "overlaps_other": np.bincount(others, minlength=TOP + 1).tolist(),
        "nearest": {
            **similar,
            "percentile": float(alike.mean()),
            "first_in_hundred": float((alike >= 0.99).mean()),
            "same_sub_key": float(mates.mean()),
            "same_sub_key_by_chance": float(sharers.mean() / (len(counts) - 1)),
            "percentile_elsewhere": float(elsewhere.mean()) if len(elsewhere) else None,
        },
        "percentiles": percentiles,
        "examples": [_example(contents, row, nearest[row], true_top, recalled_top) for row in shown],
    }


def _example(
    contents: Contents, row: int, near: Sequence[Neighbour], true_top: IntArray, recalled_top: IntArray
) -> dict[str, Any]:
    def tops(user: int) -> dict[str, Any]:
        true = [int(column) for column in true_top[user] if contents.counts[user, column] > 0]
        recalled = recalled_top[user].tolist()
        return {
            "name": contents.user_names[user],
            "events": int(contents.counts[user].sum()),
            "true_top": [contents.category_names[column] for column in true],
            "true_counts": [int(contents.counts[user, column]) for column in true],
            "recalled_top": [contents.category_names[column] for column in recalled],
            "agree": len({*true} & {*recalled}),
        }

    return {
        **tops(row),
        "nearest": [
            {
                **tops(each.user),
                "cosine_memory": each.memory,
                "cosine_truth": each.truth,
                "same_sub_key": bool(contents.user_keys[each.user] == contents.user_keys[row]),
            }
            for each in near
        ],
    }


def _nearest(
    contents: Contents, near: int, seed: int
) -> tuple[dict[int, list[Neighbour]], dict[str, NDArray[np.float64]], dict[str, float]]:
    """Each user's nearest by memory, the percentiles of the first by true counts, and mean cosines of true counts."""
    profiles, truth, keys = _unit(contents.projections), _unit(contents.counts), contents.user_keys
    U = len(truth)
    if U < 2:
        raise DataError("contents compares users and needs two at least with an event before the test part")
    found: dict[int, list[Neighbour]] = {}
    percentiles = {"all": np.empty(U), "elsewhere": np.empty(U)}
    best = np.empty(U)
    for first in range(0, U, _USERS):
        rows = np.arange(first, min(first + _USERS, U))
        own = (np.arange(len(rows)), rows)
        by_memory, by_truth = profiles[rows] @ profiles.T, truth[rows] @ truth.T  # [R, U]
        by_memory[own], by_truth[own] = -np.inf, -np.inf
        order = np.argpartition(-by_memory, min(near, U - 1), axis=1)[:, :near]  # [R, near]
        order = np.take_along_axis(order, np.argsort(-np.take_along_axis(by_memory, order, axis=1), axis=1), axis=1)
        for place, row in enumerate(rows.tolist()):
            found[row] = [
                Neighbour(int(user), float(by_memory[place, user]), float(by_truth[place, user]))
                for user in order[place]
                if user != row
            ]
        percentiles["all"][rows] = _percentile(by_truth, order[:, :1])
        by_memory[keys[rows][:, None] == keys] = -np.inf
        percentiles["elsewhere"][rows] = _percentile(by_truth, by_memory.argmax(axis=1)[:, None])
        best[rows] = by_truth.max(axis=1)
    percentiles["elsewhere"] = percentiles["elsewhere"][np.bincount(keys)[keys] < U]
    similar = {
        "cosine": float(np.mean([near[0].truth for near in found.values()])),
        "cosine_random": float((truth * truth[_another(U, seed)]).sum(1).mean()),
        "cosine_best": float(best.mean()),
    }
    return found, percentiles, similar


def _percentile(cosines: NDArray[np.float32], chosen: IntArray) -> NDArray[np.float64]:
    """Share of the other users that are below the chosen one of each row, equals counting one half.

    Args:
        cosines: ``[R, U]``, -inf for the user of the row.
        chosen: ``[R, 1]``.
    """
    value = np.take_along_axis(cosines, chosen, axis=1)  # [R, 1]
    below, equal = (cosines < value).sum(1) - 1, (cosines == value).sum(1) - 1  # neither the user nor the chosen
    others = cosines.shape[1] - 2
    return np.asarray((below + equal / 2) / others) if others else np.ones(len(cosines))


def _unit(table: FloatArray | IntArray) -> NDArray[np.float32]:
    wide = table.astype(np.float32)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


def _top(table: FloatArray | IntArray) -> IntArray:
    """Columns of the TOP largest of each row, the first of equals first."""
    return np.argsort(-table, axis=1, kind="stable")[:, :TOP]


def _another(count: int, seed: int) -> IntArray:
    """Another row for each of ``count`` rows, all different."""
    order = np.random.default_rng(seed).permutation(count)
    other = np.empty(count, dtype=np.int64)
    other[order] = np.roll(order, 1)
    return other


def _agreement(counts: IntArray, projections: NDArray[np.float32]) -> dict[str, float | None]:
    flat, labels = projections.ravel(), (counts > 0).ravel().astype(np.float32)
    both = 0 < labels.sum() < len(labels)
    groups = np.repeat(np.arange(len(counts)), counts.shape[1])
    return {
        "spearman": _spearman(counts.ravel(), flat),
        "auc": auc(labels, flat) if both else None,
        "auc_within_user": grouped_auc(labels, flat, groups) if both else None,
    }


def _spearman(first: FloatArray | IntArray, second: FloatArray | IntArray) -> float | None:
    """Correlation of the ranks, equal values sharing their mean rank; None where all of one side are equal."""
    ranks = []
    for values in (first, second):
        _, where, times = np.unique(values, return_inverse=True, return_counts=True)
        middle = np.cumsum(times) - (times - 1) / 2
        ranks.append(middle[where] - middle[where].mean())
    norm = np.linalg.norm(ranks[0]) * np.linalg.norm(ranks[1])
    return float(ranks[0] @ ranks[1] / norm) if norm else None
