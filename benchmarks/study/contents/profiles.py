"""Users by the profile that a memory stores of them: their top categories, and which users are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.contents.measures import another
from benchmarks.study.contents.queries import IntArray
from benchmarks.study.contents.reading import Contents
from lmn_model.data import DataError

TOP = 5
_USERS = 512
"""Users whose similarities are computed at a time."""


class Neighbour(NamedTuple):
    """A user near another: row in ``Contents.users``, cosine of the memory's profiles, cosine of the true counts."""

    user: int
    memory: float
    truth: float


def describe_profiles(contents: Contents, examples: int = 3, near: int = 3, seed: int = 0) -> dict[str, Any]:
    """Compare profiles, the familiarity of all categories, with the true counts of their users.

    Top categories are compared for users with TOP categories or more.

    Returns:
        ``{"users", "overlap", "overlap_other", "overlaps": [TOP + 1], "overlaps_other", "nearest": {...},
        "percentiles": {"all": [U], "elsewhere": [U]}, "examples": [...]}``. ``overlap`` is the mean share of the true
        top categories that are in the memory's top, ``overlap_other`` that of another user's memory; both are None
        where no user has enough categories. ``overlaps`` counts users by how many agree. A percentile is the share of
        all other users whose true counts are less like the user's than those of the nearest by memory, of all users or
        of those ``elsewhere``, with another best sub-key: users with the same one share slots.
    """
    counts = contents.counts
    true_top, recalled_top = _top(counts), _top(contents.familiarity)
    judged = (counts > 0).sum(axis=1) >= TOP
    own, other = (
        (true_top[:, :, None] == top[:, None]).any(-1).sum(-1)[judged]
        for top in (recalled_top, recalled_top[another(len(counts), seed)])
    )
    nearest, percentiles, similar = _nearest(contents, near, seed)
    alike, elsewhere = percentiles["all"], percentiles["elsewhere"]
    firsts = np.array([found[0].user for found in nearest])
    sharers = np.bincount(contents.user_keys)[contents.user_keys] - 1
    by_events = np.flatnonzero(judged)[np.argsort(-counts.sum(axis=1, dtype=np.int64)[judged], kind="stable")]
    places = [int(len(by_events) * (2 * n + 1) / (2 * examples)) for n in range(examples)]
    shown = list(dict.fromkeys(int(by_events[place]) for place in places)) if len(by_events) else []
    return {
        "users": int(judged.sum()),
        "overlap": float(own.mean() / TOP) if len(own) else None,
        "overlap_other": float(other.mean() / TOP) if len(own) else None,
        "overlaps": np.bincount(own, minlength=TOP + 1).tolist(),
        "overlaps_other": np.bincount(other, minlength=TOP + 1).tolist(),
        "nearest": {
            **similar,
            "percentile": float(alike.mean()),
            "first_in_hundred": float((alike >= 0.99).mean()),
            "same_sub_key": float((contents.user_keys[firsts] == contents.user_keys).mean()),
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

    def neighbour(each: Neighbour) -> dict[str, Any]:
        same = bool(contents.user_keys[each.user] == contents.user_keys[row])
        return {
            **tops(each.user),
            "cosine_memory": each.memory,
            "cosine_truth": each.truth,
            "same_sub_key": same,
        }

    return {**tops(row), "nearest": [neighbour(each) for each in near]}


def _nearest(
    contents: Contents, near: int, seed: int
) -> tuple[list[list[Neighbour]], dict[str, NDArray[np.float64]], dict[str, float]]:
    """Each user's nearest by memory, the percentiles of the first by true counts, and mean cosines of true counts."""
    profiles, truth, keys = _unit(contents.familiarity), _unit(contents.counts), contents.user_keys
    U = len(truth)
    if U < 2:
        raise DataError("contents compares users and needs at least two with an event before the test split")
    found: list[list[Neighbour]] = []
    percentiles = {"all": np.empty(U), "elsewhere": np.empty(U)}
    best = np.empty(U)
    for first in range(0, U, _USERS):
        rows = np.arange(first, min(first + _USERS, U))
        own = (np.arange(len(rows)), rows)
        by_memory, by_truth = profiles[rows] @ profiles.T, truth[rows] @ truth.T  # [R, U]
        by_memory[own], by_truth[own] = -np.inf, -np.inf
        order = np.argpartition(-by_memory, min(near, U - 1), axis=1)[:, :near]  # [R, near]
        order = np.take_along_axis(order, np.argsort(-np.take_along_axis(by_memory, order, axis=1), axis=1), axis=1)
        found += [
            [
                Neighbour(int(user), float(by_memory[place, user]), float(by_truth[place, user]))
                for user in order[place]
                if user != row
            ]
            for place, row in enumerate(rows)
        ]
        percentiles["all"][rows] = percentile(by_truth, order[:, :1])
        by_memory[keys[rows][:, None] == keys] = -np.inf
        percentiles["elsewhere"][rows] = percentile(by_truth, by_memory.argmax(axis=1)[:, None])
        best[rows] = by_truth.max(axis=1)
    percentiles["elsewhere"] = percentiles["elsewhere"][np.bincount(keys)[keys] < U]
    similar = {
        "cosine": float(np.mean([near[0].truth for near in found])),
        "cosine_random": float((truth * truth[another(U, seed)]).sum(1).mean()),
        "cosine_best": float(best.mean()),
    }
    return found, percentiles, similar


def percentile(cosines: NDArray[np.float32], chosen: IntArray) -> NDArray[np.float64]:
    """Share of the other users that are below the chosen one of each row, equals counting one half.

    Args:
        cosines: ``[R, U]``, -inf for the user of the row.
        chosen: ``[R, 1]``.
    """
    value = np.take_along_axis(cosines, chosen, axis=1)  # [R, 1]
    below, equal = (cosines < value).sum(1) - 1, (cosines == value).sum(1) - 1  # neither the user nor the chosen
    others = cosines.shape[1] - 2
    return np.asarray((below + equal / 2) / others) if others else np.ones(len(cosines))


def _unit(table: NDArray[Any]) -> NDArray[np.float32]:
    wide = table.astype(np.float32)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


def _top(table: NDArray[Any]) -> IntArray:
    """Columns of the TOP largest of each row, the first of equals first."""
    return np.argsort(-table, axis=1, kind="stable")[:, :TOP]
