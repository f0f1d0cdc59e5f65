"""Prepared rows that are drawn at random, for timings without data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl


def write_synthetic_rows(folder: Path, *, users: int, items: int, categories: int, events: int, rows: int) -> None:
    """A folder of prepared rows: popularity is a power law, histories have ``events`` events in the mean."""
    rng = np.random.default_rng(0)
    lengths = np.maximum(2, (rng.gamma(1.2, events / 1.2, users)).astype(np.int64))

    def drawn(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        return 1 + (items * rng.random(count) ** 3).astype(np.int64)

    histories = np.split(drawn(int(lengths.sum())), np.cumsum(lengths)[:-1])
    pl.DataFrame({"full_item_seq": [each.tolist() for each in histories]}).write_parquet(folder / "user_info.parquet")
    category = np.append(0, 1 + rng.permutation(items) % categories)
    pl.DataFrame(
        {
            "item_index": np.arange(items + 1),
            "product_id": np.arange(items + 1),
            "department": np.where(category == 0, 0, 1 + category % 28),
            "category": category,
        }
    ).write_parquet(folder / "item_info.parquet")
    for part, low, high, count in (
        ("train", 0.0, 0.8, rows),
        ("valid", 0.8, 0.9, rows // 8),
        ("test", 0.9, 1.0, rows // 8),
    ):
        user = rng.integers(0, users, count)
        pl.DataFrame(
            {
                "label": np.arange(count) % 2,
                "user_index": user,
                "item_index": drawn(count),
                "seq_len": (rng.uniform(low, high, count) * lengths[user]).astype(np.int64),
                "user_id": user + 1,
            }
        ).write_parquet(folder / f"{part}.parquet")
