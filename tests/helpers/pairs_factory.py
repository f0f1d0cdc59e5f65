"""Pairs of an item with two features and a user, for tests of factored memories."""

from __future__ import annotations

import torch
from torch import Tensor

from lmn_model import FactoredMemoryNetwork
from lmn_model.data import CategoricalFeature, FeatureSpec

ITEM = (CategoricalFeature("item", 30), CategoricalFeature("category", 6))
USER = CategoricalFeature("user", 11)
FEATURES = FeatureSpec(user=(USER,), item=ITEM, context=(), numeric=())
D = 16


def draw(rows: int) -> tuple[Tensor, Tensor]:
    item = torch.stack([torch.randint(1, feature.size, (rows,)) for feature in ITEM], dim=-1)
    return item, torch.randint(1, USER.size, (rows,))


def codes_of(network: FactoredMemoryNetwork, item: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of items and users, each ``[R, 2, D]``."""
    items = torch.stack((network.item_codes[item[:, 0]], network.item_codes[ITEM[0].size + item[:, 1]]), dim=1)
    return items, network.user_codes[user][:, None].expand(-1, 2, -1)
