"""A small synthetic event table with preferences that a model can learn."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl

CATEGORIES = 8
"""Categories of items; each user likes two of them."""


def make_events(
    rows: int = 2000, users: int = 40, items: int = 120, seed: int = 0, label: bool = False
) -> pl.DataFrame:
    """Events in the order of time, the same for the same arguments.

    A user takes an item of a liked category nine times in ten. The segment of a user is the first liked category.

    Args:
        rows: number of events.
        users: number of users, ids ``u0`` and up.
        items: number of items, ids 1000 and up.
        seed: of all draws.
        label: add a column ``label``: items are then shown at random and it is 1, nine times in ten, where the
            category is liked, and one time in ten where it is not.

    Returns:
        Columns ``user_id`` (text), ``item_id`` (integer), ``timestamp`` (datetime, one in three equal to the one
        before), ``category`` and ``segment`` (text), ``hour`` (integer), ``price`` (float64), and ``label`` (integer)
        if ``label``.
    """
    rng = np.random.default_rng(seed)
    item_category = np.arange(items) % CATEGORIES
    liked = np.stack([np.arange(users) % CATEGORIES, rng.integers(0, CATEGORIES, users)], axis=1)  # [users, 2]
    user = rng.integers(0, users, rows)
    wanted = liked[user, rng.integers(0, 2, rows)]
    by_category = wanted + CATEGORIES * rng.integers(0, items // CATEGORIES, rows)
    at_random = rng.integers(0, items, rows)
    item = at_random if label else np.where(rng.random(rows) < 0.9, by_category, at_random)
    minute = np.cumsum(rng.integers(1, 30, rows) * (rng.random(rows) > 1 / 3))
    start = datetime(2024, 1, 1)
    events = pl.DataFrame(
        {
            "user_id": [f"u{u}" for u in user],
            "item_id": 1000 + item,
            "timestamp": [start + timedelta(minutes=int(m)) for m in minute],
            "category": [f"c{c}" for c in item_category[item]],
            "segment": [f"s{s}" for s in liked[user, 0]],
            "hour": (minute // 60) % 24,
            "price": np.round(1 + item % 7 + rng.random(rows), 2),
        }
    )
    if not label:
        return events
    likes = (liked[user] == item_category[item][:, None]).any(axis=1)
    return events.with_columns(pl.Series("label", (rng.random(rows) < np.where(likes, 0.9, 0.1)).astype(np.int64)))
