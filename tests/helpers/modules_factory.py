"""One small instance of every module of ``lmn_model``, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lmn_model import (
    EventEmbeddings,
    FactoredMemoryNetwork,
    LargeMemoryNetwork,
    MemoryLayer,
    ProductKeyMemory,
    ProfileMemory,
    SimilarItemMemory,
)
from lmn_model.ctr import CollaborativeSettings, CTRModel, MemorySettings, ModelSettings
from lmn_model.ctr.collaborative import CollaborativeFeatures
from lmn_model.ctr.feature_embedding import FeatureEmbedding
from lmn_model.ctr.memory_features import MemoryGate, MemoryLogit
from lmn_model.ctr.window import WINDOW_MODELS, WindowMatchFeatures, window_model
from lmn_model.data import CategoricalFeature, FeatureSpec
from lmn_model.modules.resetting import EmbeddingTable, PairMap, ZeroLinear

ITEM = (CategoricalFeature("item", 30), CategoricalFeature("category", 6))
COLLABORATIVE = CollaborativeSettings(profile_levels=2, profile_dim=4, event_dim=4)
FEATURES = FeatureSpec((CategoricalFeature("user", 11),), ITEM, (CategoricalFeature("hour", 5),), ("price",))


def ctr(kind: str = "factored", **memory: object) -> CTRModel:
    settings = MemorySettings(kind=kind, sub_keys=8, **memory)  # type: ignore[arg-type]
    return CTRModel(FEATURES, ModelSettings(hidden=(8, 4), matches=True, memory=settings))


def table() -> EmbeddingTable:
    made = EmbeddingTable(7, 3, padding_idx=0)
    made.std = 0.1
    made.reset_parameters()
    return made


def pair_map() -> PairMap:
    made = PairMap(nn.Linear(9, 40), 6)
    made.reset_parameters()
    return made


MODULES: dict[str, Callable[[], nn.Module]] = {
    "layer": lambda: MemoryLayer(5, 7, sub_keys=6, top_k=3),
    "memory": lambda: ProductKeyMemory(6, sub_keys=6, top_k=3, value_std=0.5),
    "layer with heads": lambda: MemoryLayer(5, 6, sub_keys=6, top_k=3, heads=2, concat_heads=True, value_std=0.5),
    "network": lambda: LargeMemoryNetwork(4, 3, sub_keys=6, top_k=2),
    "factored": lambda: FactoredMemoryNetwork([30, 6], 11, sub_keys=8),
    "without marginals": lambda: FactoredMemoryNetwork([30, 6], 11, sub_keys=8, marginals=False),
    "profiles": lambda: ProfileMemory(30, 11, levels=2, dim=4),
    "signed profiles": lambda: ProfileMemory(None, None, levels=2, dim=4, rows=8, signed=True),
    "events": lambda: EventEmbeddings([30, 6], 11, dim=4),
    "similar items": lambda: SimilarItemMemory(11, 4, sub_keys=6, top_k=2),
    "collaborative": lambda: CollaborativeFeatures(FEATURES, COLLABORATIVE),
    "embedding": lambda: FeatureEmbedding(ITEM, 4, 0.1),
    "no embedding": lambda: FeatureEmbedding((), 4, 0.1),
    "gate": lambda: MemoryGate(4, 6),
    "logit": lambda: MemoryLogit(4),
    "zero": lambda: ZeroLinear(4, 6),
    "table": table,
    "matches": WindowMatchFeatures,
    **{f"window {name}": lambda name=name: window_model(name, 4) for name in WINDOW_MODELS},
    "ctr": lambda: ctr(joins="logit", gate=True),
    "ctr joint": lambda: ctr("joint"),
    "ctr collaborative": lambda: CTRModel(
        FEATURES, ModelSettings(hidden=(), memory=MemorySettings(kind="none"), collaborative=COLLABORATIVE)
    ),
    "ctr mimn": lambda: CTRModel(FEATURES, ModelSettings(window="mimn", hidden=(), memory=MemorySettings(kind="none"))),
}
