"""Ids of items and users as a memory takes them, checked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lmn_model.modules.tensor_state import has_data


def checked_ids(item: Tensor, user: Tensor, item_sizes: Sequence[int], user_size: int) -> tuple[Tensor, Tensor]:
    """Ids ``[B, F]`` and ``[B]`` as int64.

    Args:
        item: ids of the F features, int64 or int32, from 0 to a feature's size - 1.
        user: ids of the users, from 0 to ``user_size - 1``.
        item_sizes: F sizes.
        user_size: number of users.

    Raises:
        TypeError: ids of another type.
        ValueError: another shape; or an id out of range, which is looked for on a CPU alone (elsewhere it would wait
            for the device), and not in ``torch.compile``, ``torch.export`` and ``torch.func``, nor in fake tensors.
    """
    for name, ids in (("item", item), ("user", user)):
        if ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"FactoredMemoryNetwork: {name} must be int64 or int32, got {ids.dtype}")
    if item.ndim != 2 or item.shape[1] != len(item_sizes):
        raise ValueError(f"FactoredMemoryNetwork: item must be [B, F = {len(item_sizes)}], got {list(item.shape)}")
    if user.ndim != 1 or user.shape[0] != item.shape[0]:
        raise ValueError(f"FactoredMemoryNetwork: user must be [B = {item.shape[0]}], got {list(user.shape)}")
    item, user = item.long(), user.long()
    if item.device.type == "cpu" and not torch.compiler.is_compiling() and has_data(item) and has_data(user):
        sizes = torch.tensor(tuple(item_sizes), device="cpu")
        if not torch.equal(item % sizes, item):
            row, feature = (item % sizes != item).nonzero()[0].tolist()
            raise ValueError(
                f"FactoredMemoryNetwork: item must hold ids in [0, {item_sizes[feature]}) of feature {feature}, "
                f"got {int(item[row, feature])}"
            )
        if not torch.equal(user % user_size, user):
            wrong = user[user % user_size != user][0]
            raise ValueError(f"FactoredMemoryNetwork: user must hold ids in [0, {user_size}), got {int(wrong)}")
    return item, user
