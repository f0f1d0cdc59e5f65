"""Small folders of prepared rows, as they come to ``load_rows``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

SPLITS = ("train", "valid", "test")
ITEM_FEATURES = ("product_id", "category")


def make_rows(
    users: int = 12, items: int = 40, rows: int = 150, context: bool = True, seed: int = 0
) -> dict[str, pl.DataFrame]:
    """The tables of a folder of prepared rows, by the names of their files without suffix.

    User 0 has an empty history, user 1 has no sample, and one history in three repeats few items. The training split
    is drawn from the first 60 % of each history, validation from up to 80 %, test from the rest; the rows of a
    file are in random order. Two item rows share one id, as a video does that was viewed in two ways.
    """
    rng = np.random.default_rng(seed)
    lengths = np.where(np.arange(users) == 0, 0, rng.integers(1, 60, users))
    histories = [rng.integers(1, items if user % 3 else 5, length).tolist() for user, length in enumerate(lengths)]
    ids = np.maximum(np.arange(items) - 1, 0)
    ids[1] = 1
    tables = {
        "user_info": pl.DataFrame({"full_item_seq": histories}, schema={"full_item_seq": pl.List(pl.Int64)}),
        "item_info": pl.DataFrame(
            {
                "item_index": np.arange(items),
                "product_id": ids,
                "category": np.where(np.arange(items) == 0, 0, 1 + np.arange(items) % 6),
            }
        ),
    }
    for part, (low, high) in zip(SPLITS, ((0.0, 0.6), (0.6, 0.8), (0.8, 1.0)), strict=True):
        user = rng.choice(np.delete(np.arange(users), 1), rows)
        share = rng.uniform(low, high, rows)
        tables[part] = pl.DataFrame(
            {
                "label": rng.integers(0, 2, rows),
                "user_index": user,
                "item_index": rng.integers(1, items, rows),
                "seq_len": (share * (lengths[user] + 1)).astype(np.int64),
                "user_id": user + 1,
                **({"tab": rng.integers(1, 5, rows), "hour": rng.integers(1, 25, rows)} if context else {}),
            }
        )
    return tables


def make_timed_rows(
    users: int = 9, items: int = 30, events: int = 200, rows: int = 40, moments: int = 90, seed: int = 0
) -> dict[str, pl.DataFrame]:
    """The tables of prepared rows with integer times, several events and samples at most moments.

    User 0 has no event and user 1 no sample. The training split ends at 60 % of the moments, validation at 80 %; the
    rows of a file are in random order, and a sample's history holds the events of its user strictly before it.
    """
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(0, moments, events))
    owner = rng.integers(1, users, events)
    mine = [np.flatnonzero(owner == user) for user in range(users)]
    item = rng.integers(1, items, events)
    lists = {"full_item_seq": [item[rows].tolist() for rows in mine], "full_time_seq": [time[rows] for rows in mine]}
    schema = {name: pl.List(pl.Int64) for name in lists}
    tables = make_rows(users=2, items=items, rows=1)
    tables["user_info"] = pl.DataFrame(lists, schema=schema)
    for name, (low, high) in zip(SPLITS, ((0.0, 0.6), (0.6, 0.8), (0.8, 1.0)), strict=True):
        user = rng.choice(np.delete(np.arange(users), 1), rows)
        moment = rng.integers(int(low * moments), int(high * moments), rows)
        tables[name] = pl.DataFrame(
            {
                "label": rng.integers(0, 2, rows),
                "user_index": user,
                "item_index": rng.integers(1, items, rows),
                "seq_len": [int((time[mine[u]] < t).sum()) for u, t in zip(user, moment, strict=True)],
                "user_id": user + 1,
                "tab": rng.integers(1, 5, rows),
                "timestamp": moment,
            }
        )
    return tables


def feature_map(sizes: Mapping[str, int]) -> str:
    """The text of a ``feature_map.json`` with these sizes of categorical features."""
    meta = [{name: {"source": "", "type": "meta"}} for name in ("user_index", "item_index", "seq_len")]
    features = [{name: {"source": "item", "type": "categorical", "vocab_size": size}} for name, size in sizes.items()]
    return json.dumps({"labels": ["label"], "features": [*meta, *features]})


def write_rows(
    folder: Path, tables: Mapping[str, pl.DataFrame] | None = None, sizes: Mapping[str, int] | None = None
) -> Path:
    """Write tables into a new folder, those of ``make_rows`` by default, and a feature map if ``sizes`` are given."""
    folder.mkdir()
    for name, table in (make_rows() if tables is None else tables).items():
        table.write_parquet(folder / f"{name}.parquet")
    if sizes is not None:
        (folder / "feature_map.json").write_text(feature_map(sizes))
    return folder
