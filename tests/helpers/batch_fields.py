"""The fields of a batch, and whether two batches are the same."""

from __future__ import annotations

import torch

from lmn_model.data import Batch

FIELDS = ("user", "item", "context", "numeric", "history", "history_mask", "label", "group")
OPTIONAL = (
    "found", "found_mask", "new_items", "new_users", "feedback_items", "feedback_users", "feedback_labels",
)  # fmt: skip


def same(left: Batch, right: Batch) -> bool:
    if not torch.equal(left.label.nan_to_num(-1.0), right.label.nan_to_num(-1.0)):
        return False
    for name in (*FIELDS, *OPTIONAL):
        ours, theirs = getattr(left, name), getattr(right, name)
        if (ours is None) != (theirs is None):
            return False
        if ours is not None and name != "label" and not torch.equal(ours, theirs):
            return False
    return True
