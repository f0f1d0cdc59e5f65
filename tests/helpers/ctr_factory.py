"""Small CTR models and batches of random ids."""

from __future__ import annotations

from dataclasses import replace

import torch

from lmn_model.ctr import MemorySettings, ModelSettings
from lmn_model.data import Batch, CategoricalFeature, FeatureSpec

FEATURES = FeatureSpec(
    user=(CategoricalFeature("user", 9), CategoricalFeature("segment", 4)),
    item=(CategoricalFeature("item", 20), CategoricalFeature("category", 5), CategoricalFeature("brand", 3)),
    context=(CategoricalFeature("hour", 6),),
    numeric=("price",),
)
MEMORY = {"sub_keys": 8, "top_k": 3, "key_dim": 4}
KINDS = {
    "none": MemorySettings(kind="none"),
    "joint": MemorySettings(kind="joint", **MEMORY),
    "factored": MemorySettings(kind="factored", sub_keys=8, code_dim=16),
}


def settings_of(window: str = "din", memory: str = "joint", **changes: object) -> ModelSettings:
    return ModelSettings(window=window, memory=KINDS[memory], **{"embedding_dim": 4, "hidden": (8,), **changes})  # type: ignore[arg-type]


SETTINGS = settings_of()


def make_batch(rows: int = 6, window: int = 5) -> Batch:
    def ids(features: tuple[CategoricalFeature, ...], *shape: int) -> torch.Tensor:
        return torch.stack([torch.randint(1, feature.size, shape) for feature in features], dim=-1)

    lengths = torch.randint(0, window + 1, (rows,))
    mask = torch.arange(window) >= window - lengths[:, None]
    return Batch(
        user=ids(FEATURES.user, rows),
        item=ids(FEATURES.item, rows),
        context=ids(FEATURES.context, rows),
        numeric=torch.randn(rows, 1),
        history=ids(FEATURES.item, rows, window) * mask[..., None],
        history_mask=mask,
        label=torch.randint(0, 2, (rows,)).float(),
        group=torch.arange(rows),
    )


def make_full_batch(rows: int = 6) -> Batch:
    """A batch with found events, for a search, and new events, for a factored memory."""
    batch, other = make_batch(rows), make_batch(rows, window=3)
    found = {"found": other.history, "found_mask": other.history_mask}
    return replace(batch, **found, new_items=other.item, new_users=batch.user[:, 0])
