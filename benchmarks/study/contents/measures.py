"""What a factored memory stores of an item feature, measured against the true events.

A pair (category, user) has one address and one bound code, so the memory can be read for every pair, written or not.
Its familiarity is 0 for a pair that was never written, and 1 where the whole bound code is stored. It is compared with
the number of true events. As a control, the same comparison is made with the events of another user.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.study.contents.queries import IntArray
from benchmarks.study.contents.reading import Contents
from lmn_model.setting_types import SettingsError
from lmn_model.training.evaluation.metrics import auc, grouped_auc
from lmn_model.wording import did_you_mean

COUNT_EDGES = (0, 1, 2, 3, 5, 10, 20, 50)
"""Pairs are grouped by their events: 0, 1, 2, 3 to 4 and so on."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FALSE_ALARMS = 0.05
"""Share of the pairs without an event that may lie above the threshold."""


def threshold_of(contents: Contents) -> float:
    """The familiarity that one in twenty of the pairs without an event exceeds; above it a pair counts as recalled."""
    never = contents.familiarity[contents.counts == 0]
    return float(np.quantile(never, 1 - FALSE_ALARMS)) if len(never) else 0.0


def describe_usage(contents: Contents) -> dict[str, Any]:
    """How full the slots are: share in use, quantiles of their norms, and what the fullest hundredth holds."""
    norms = contents.norms.ravel()
    used = np.sort(norms[norms > 0])
    top = norms.size // 100 or 1
    return {
        "cells": norms.size,  # a former name
        "in_use": len(used) / norms.size,
        "sub_keys_in_use": [int((contents.norms > 0).any(axis=axis).sum()) for axis in (1, 0)],
        "length": {f"{q:g}": float(np.quantile(used, q)) for q in (*QUANTILES, 1.0)} if len(used) else {},
        "share_of_fullest_hundredth": float(used[-top:].sum() / used.sum()) if len(used) else None,
    }


def choose_categories(contents: Contents, names: Sequence[str] | None = None, count: int = 8) -> list[int]:
    """Columns of the named categories, or of the ``count`` with the most events.

    Args:
        contents: that has them.
        names: in any case; one text may be several names with commas between them.
        count: how many, without names.

    Raises:
        SettingsError: there is no such category.
    """
    if not names:
        order = np.argsort(-contents.counts.sum(axis=0, dtype=np.int64), kind="stable")
        return [int(column) for column in order[:count]]
    columns = {name.casefold(): column for column, name in reversed(list(enumerate(contents.category_names)))}
    chosen = []
    for text in names:
        is_name = text.strip().casefold() in columns  # a name may hold a comma itself
        for name in [text.strip()] if is_name else [part.strip() for part in text.split(",") if part.strip()]:
            if name.casefold() not in columns:
                close = did_you_mean(name.casefold(), columns)
                raise SettingsError(f"--category: {contents.feature} has no value {name!r}{close}")
            chosen.append(columns[name.casefold()])
    return list(dict.fromkeys(chosen))


def describe_categories(contents: Contents, chosen: Sequence[int], threshold: float) -> list[dict[str, Any]]:
    """Sub-key of each category, what else has the same sub-key, and how many users the memory recalls it for."""
    found = []
    for column in chosen:
        key = int(contents.category_keys[column])
        recalled = contents.familiarity[:, column] > threshold
        bought = contents.counts[:, column] > 0
        same = np.flatnonzero(contents.category_keys == key)
        found.append(
            {
                "name": contents.category_names[column],
                "sub_key": key,
                "shares_with": [contents.category_names[other] for other in same if other != column],
                "members_of_sub_key": {name: int(members[key]) for name, members in contents.members.items()},
                "cells_in_use": int((contents.norms[key] > 0).sum()),
                "users": int(bought.sum()),
                "recalled": int(recalled.sum()),
                "rightly": int((recalled & bought).sum()),
                "cells_recalled": len(np.unique(contents.user_keys[recalled])),
            }
        )
    return found


def describe_recall(contents: Contents, threshold: float, seed: int = 0) -> dict[str, Any]:
    """Familiarity against the number of events over all pairs, and against that of another user as a control.

    Returns:
        ``{"pairs", "with_event", "own": {"spearman", "auc", "auc_within_user"}, "other": the same, "threshold",
        "by_count": [{"from", "to", "pairs", "quantiles", "above_threshold"}]}``; ``to`` is exclusive, None for no end.
        A metric that is not defined is None.
    """
    counts, familiarity = contents.counts, contents.familiarity
    by_count = []
    for low, high in zip(COUNT_EDGES, (*COUNT_EDGES[1:], None), strict=True):
        chosen = familiarity[(counts >= low) & (counts < (np.inf if high is None else high))]
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
        "own": _agreement(counts, familiarity),
        "other": _agreement(counts, familiarity[another(len(counts), seed)]),
        "threshold": threshold,
        "by_count": by_count,
    }


def another(count: int, seed: int) -> IntArray:
    """For each of ``count`` rows another one, all different."""
    order = np.random.default_rng(seed).permutation(count)
    other = np.empty(count, dtype=np.int64)
    other[order] = np.roll(order, 1)
    return other


def _agreement(counts: IntArray, familiarity: NDArray[np.float32]) -> dict[str, float | None]:
    flat, labels = familiarity.ravel(), (counts > 0).ravel().astype(np.float32)
    is_defined = 0 < labels.sum() < len(labels)
    users = np.repeat(np.arange(len(counts)), counts.shape[1])
    varies = np.ptp(counts) > 0 and np.ptp(flat) > 0
    return {
        "spearman": float(spearmanr(counts.ravel(), flat).statistic) if varies else None,
        "auc": auc(labels, flat) if is_defined else None,
        "auc_within_user": grouped_auc(labels, flat, users) if is_defined else None,
    }
