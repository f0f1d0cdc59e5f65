"""Synthetic tables of events whose structure a click model can learn: tastes that drift, popularity and loyalty."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

CATEGORIES = 20
STAPLES = 8
"""Items that each user returns to."""
SECONDS = 100 * 86_400
"""Span of a table."""


class TableSize(NamedTuple):
    """Rows, users and items of a table."""

    rows: int
    users: int
    items: int


def make_table(size: TableSize, *, labelled: bool, seed: int = 0) -> pl.DataFrame:
    """Events in the order of time, the same for the same arguments.

    A user likes three of 20 categories at the start and three at the end, drawn apart; the moment of each change is
    the user's own. Eight items of the liked categories are the user's staples. Items are popular by a power law.

    Args:
        size: rows, users and items.
        labelled: True shows items by popularity, half of them from the user's staples or liked categories, and draws
            a label: 60 % for a staple, 35 % in a liked category, 10 % elsewhere. False keeps what was taken: 40 %
            staples, 40 % of a liked category, 20 % by popularity.
        seed: of all draws.

    Returns:
        Columns ``user_id``, ``item_id``, ``timestamp`` (integers), ``category`` and, if ``labelled``, ``label``.
    """
    rng = np.random.default_rng([seed, size.rows, labelled])
    rows, users, items = size
    category = rng.integers(0, CATEGORIES, items)
    appeal = 1.0 / (1 + rng.permutation(items)) ** 0.7
    liked = rng.integers(0, CATEGORIES, (users, 2, 3))  # at the start and at the end
    change = rng.random((users, 3))
    by_category = [np.flatnonzero(category == each) for each in range(CATEGORIES)]
    activity = rng.pareto(2.0, users) + 0.3
    user = rng.choice(users, rows, p=activity / activity.sum())
    time = np.sort(rng.random(rows))
    slot = rng.integers(0, 3, rows)
    wanted = liked[user, (time > change[user, slot]).astype(int), slot]
    owner, moment, place = np.arange(users).repeat(STAPLES), *rng.integers(0, (2, 3), (users * STAPLES, 2)).T
    staples = _draw(rng, by_category, appeal, liked[owner, moment, place])
    staples = staples.reshape(users, STAPLES)
    shares = (0.25, 0.25) if labelled else (0.4, 0.4)
    kind = rng.choice(3, rows, p=(*shares, 1 - sum(shares)))
    item = rng.choice(items, rows, p=appeal / appeal.sum())
    item[kind == 0] = staples[user[kind == 0], rng.integers(0, STAPLES, (kind == 0).sum())]
    item[kind == 1] = _draw(rng, by_category, appeal, wanted[kind == 1])
    table = pl.DataFrame(
        {
            "user_id": user,
            "item_id": item,
            "timestamp": (time * SECONDS).astype(np.int64),
            "category": [f"c{each}" for each in category[item]],
        }
    )
    if not labelled:
        return table
    now = liked[user[:, None], (time[:, None] > change[user]).astype(int), np.arange(3)]  # [rows, 3]
    likes = (now == category[item][:, None]).any(axis=1)
    staple = (staples[user] == item[:, None]).any(axis=1)
    chance = np.where(staple, 0.6, np.where(likes, 0.35, 0.1))
    return table.with_columns(pl.Series("label", (rng.random(rows) < chance).astype(np.int64)))


def _draw(
    rng: np.random.Generator, by_category: list[NDArray[np.intp]], appeal: NDArray[np.float64], wanted: NDArray[np.intp]
) -> NDArray[np.intp]:
    """An item of each ``wanted`` category, by its appeal."""
    found = rng.integers(0, len(appeal), len(wanted))  # stays where a category has no item
    for each, members in enumerate(by_category):
        at = np.flatnonzero(wanted == each)
        if len(members) and len(at):
            found[at] = rng.choice(members, len(at), p=appeal[members] / appeal[members].sum())
    return found
