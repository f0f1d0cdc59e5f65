"""The models whose latency is measured, and the batches that they score: sizes of Complete Journey, random ids."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from benchmarks.serving.figure import COLLABORATIVE, JOINT
from lmn_model.ctr.model import CTRModel, ModelSettings
from lmn_model.ctr.settings import CollaborativeSettings, MemorySettings
from lmn_model.data import Batch, CategoricalFeature, FeatureSpec
from lmn_model.data.features import FIRST_KNOWN

FEATURES = FeatureSpec(
    user=(CategoricalFeature("user_id", 2466 + FIRST_KNOWN),),
    item=(
        CategoricalFeature("product_id", 28165 + FIRST_KNOWN),
        CategoricalFeature("department", 31 + FIRST_KNOWN),
        CategoricalFeature("category", 302 + FIRST_KNOWN),
    ),
    context=(),
    numeric=(),
)
CATEGORY = 2
"""Column of the feature that a hard search uses."""
FOUND = 50
"""Events that a hard search finds, as in benchmarks/study/complete_journey.toml."""
VALUE_STD = 0.1
WITHOUT = "LMN without a window"


@dataclass(frozen=True)
class Served:
    """A model of the study, by its settings."""

    window: str
    window_size: int
    memory: str = "none"
    matches: bool = False
    collaborative: bool = False
    """Profiles and embeddings of events, as in benchmarks/study/collaborative.toml."""


MODELS = {
    "pooling 50": Served("pooling", 50),
    "DIN 50": Served("din", 50),
    "DIN 200": Served("din", 200),
    "SIM hard 200": Served("sim_hard", 200),
    WITHOUT: Served("none", 1, "factored"),
    "LMN + DIN 50": Served("din", 50, "factored"),
    "LMN + DIN 50 with matches": Served("din", 50, "factored", matches=True),
    f"{WITHOUT}{COLLABORATIVE}": Served("none", 1, "factored", collaborative=True),
    f"LMN + DIN 50{COLLABORATIVE}": Served("din", 50, "factored", collaborative=True),
    f"LMN + DIN 50{JOINT}": Served("din", 50, "joint"),
}
GROWN = {WITHOUT: MODELS[WITHOUT], f"{WITHOUT}{JOINT}": Served("none", 1, "joint")}
"""Models that are timed over the size of their memory."""


@dataclass
class Request:
    """Makes the batches of one model, each of one user and ``candidates`` items, on the device."""

    served: Served
    candidates: int
    device: torch.device
    draw: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def __call__(self) -> Batch:
        rows = self.candidates
        item, user = self._items(rows), self._ids(FEATURES.user[0], 1, 1).expand(rows, 1).contiguous()
        window = self._items(1, self.served.window_size).expand(rows, -1, -1).contiguous()
        found, found_mask = None, None
        if self.served.window == "sim_hard":
            found = self._items(rows, FOUND)
            found[..., CATEGORY] = item[:, CATEGORY].unsqueeze(1)
            found_mask = torch.ones(found.shape[:2], dtype=torch.bool)
        batch = Batch(
            user=user, item=item, context=torch.empty(rows, 0, dtype=torch.int64), numeric=torch.empty(rows, 0),
            history=window, history_mask=torch.ones(window.shape[:2], dtype=torch.bool),
            label=torch.full((rows,), torch.nan), group=user[:, 0], found=found, found_mask=found_mask,
        )  # fmt: skip
        return batch.to(self.device)

    def _ids(self, feature: CategoricalFeature, *shape: int) -> torch.Tensor:
        return torch.randint(FIRST_KNOWN, feature.size, shape, generator=self.draw)

    def _items(self, *shape: int) -> torch.Tensor:
        return torch.stack([self._ids(feature, *shape) for feature in FEATURES.item], dim=-1)


def settings_of(served: Served, sub_keys: int) -> ModelSettings:
    """Settings of a model; all others are the defaults."""
    memory = MemorySettings(kind=served.memory, sub_keys=sub_keys)  # type: ignore[arg-type]
    both = CollaborativeSettings(profile_levels=5, event_dim=128) if served.collaborative else CollaborativeSettings()
    return ModelSettings(window=served.window, matches=served.matches, memory=memory, collaborative=both)  # type: ignore[arg-type]


def make_model(served: Served, sub_keys: int, device: torch.device) -> CTRModel:
    """A model in evaluation mode whose memory, if it has one, is filled with random values."""
    torch.manual_seed(0)
    model = CTRModel(FEATURES, settings_of(served, sub_keys)).eval().to(device)
    if (layer := model.memory_block()) is not None:
        with torch.no_grad():
            layer.values.normal_(std=VALUE_STD)
    if model.collaborative is not None and model.collaborative.profiles is not None:
        with torch.no_grad():
            model.collaborative.profiles.table.values.normal_(std=VALUE_STD)
    return model
