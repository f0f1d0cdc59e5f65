"""Prepared rows made of a public data set; equal options give equal bytes."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl

from lmn_model.data.dataset import SPLITS
from lmn_model.data.rows.files import HISTORY, ITEM, LABEL, LENGTH, USER, USER_ID
from lmn_model.data.rows.public import PUBLIC
from lmn_model.data.rows.purchases import PrepareOptions, purchase_rows
from lmn_model.data.schema import DataError
from lmn_model.files import replacing

TABLES = (*SPLITS, "user_info", "item_info")
FEATURE_MAP = "feature_map.json"


def prepare_rows(
    name: str, out: Path | str, options: PrepareOptions | None = None, *, force: bool = False
) -> dict[str, Any]:
    """Write a public data set as prepared rows, from an installed package alone.

    Args:
        name: ``"complete-journey"``, ``"ta-feng"`` or ``"nyc-flights"``.
        out: the folder, made if it is not there.
        options: sizes and seed; None for the defaults.
        force: replace rows that the folder holds.

    Returns:
        ``{"users", "items", "events", "rows": {split: rows}}``.

    Raises:
        DataError: the name is unknown, the package is missing, a split has too few purchases, or the folder holds rows
            already.
        OSError: the folder cannot be made or written; a file that was there is then whole, the old or the new one.
    """
    if name not in PUBLIC:
        raise DataError(f"dataset must be one of {', '.join(PUBLIC)}, got {name!r}")
    out, options = Path(out), options or PrepareOptions()
    taken = [path.name for path in _paths(out) if path.exists()]
    if taken and not force:
        raise DataError(f"{out} already holds {', '.join(taken)}; --force replaces them")
    tables = purchase_rows(PUBLIC[name].read(), options)
    write_rows(out, name, tables)
    lists = tables["user_info"][HISTORY]
    return {
        "users": len(lists),
        "items": tables["item_info"].height - 1,
        "events": int(lists.list.len().sum()),
        "rows": {split: tables[split].height for split in SPLITS},
    }


def write_rows(out: Path, name: str, tables: dict[str, pl.DataFrame]) -> None:
    """Write the tables and the feature map into a folder, replacing its files only after all are on the disk.

    Args:
        out: the folder, made if it is not there.
        name: of the data set, for the feature map.
        tables: of ``purchase_rows``.

    Raises:
        OSError: the folder cannot be made or written; a file that was there is then whole, the old or the new one.
    """
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        temporary = {path.name: stack.enter_context(replacing(path)) for path in _paths(out)}
        for table in TABLES:
            tables[table].write_parquet(temporary[f"{table}.parquet"])
        temporary[FEATURE_MAP].write_text(json.dumps(_feature_map(name, tables), indent=1) + "\n", encoding="utf-8")


def _paths(out: Path) -> list[Path]:
    return [*(out / f"{name}.parquet" for name in TABLES), out / FEATURE_MAP]


def _feature_map(name: str, tables: dict[str, pl.DataFrame]) -> dict[str, Any]:
    """Names, sources and sizes of the features, in the format of FuxiCTR."""
    items = tables["item_info"].drop(ITEM)
    largest = {USER_ID: tables["user_info"].height}
    largest |= {column: int(items[column].to_numpy().max()) for column in items.columns}
    features: list[dict[str, Any]] = [{column: {"source": "", "type": "meta"}} for column in (USER, ITEM, LENGTH)]
    for feature, last in largest.items():
        source = "user" if feature == USER_ID else "item"
        entry = {"source": source, "type": "categorical", "padding_idx": 0, "vocab_size": last + 1}
        features.append({feature: entry})
    return {
        "dataset_id": name,
        "num_fields": len(largest),
        "total_features": 0,
        "input_length": 0,
        "labels": [LABEL],
        "features": features,
    }
