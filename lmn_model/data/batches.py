"""A batch: samples as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Batch:
    """B samples as tensors.

    Args:
        user: int64 [B, F_u], ids of the user's features; column 0 is the user id.
        item: int64 [B, F_i], ids of the candidate's features; column 0 is the item id.
        context: int64 [B, F_c], ids of the event's features.
        numeric: float32 [B, X], standardised numbers of user, item and event.
        history: int64 [B, T, F_i], the items strictly before the sample, oldest first. Padding, with all ids 0, is at
            the front, so that column T - 1 is the newest.
        history_mask: bool [B, T], True where ``history`` is real.
        label: float32 [B], 0 or 1; NaN for pairs to predict.
        group: int64 [B], row of the user, for metrics by user. Users without an id from training have different rows.
        found: int64 [B, S, F_i], the newest S events of the *whole* history that share the candidate's value of the
            feature ``search_by``, oldest first, padded in front like ``history``; None without ``search_by``.
        found_mask: bool [B, S], True where ``found`` is real; None without ``search_by``.
        new_items: int64 [P, F_i], the events to write to a memory after it was read for this batch; None without
            ``BatchLoader(new_events=True)``. Over a pass in the order of time each event comes once.
            With ``writes="calendar"`` they are the events of all users before the first sample of the next batch that
            no earlier batch carried, in the order of time. The last batch carries those until its last sample, its
            moment included. So a memory that is read holds only events before the samples.
            With ``writes="samples"`` they are the events in the histories of these samples that no earlier sample of
            their user had in its own, by row of the batch, then oldest first.
        new_users: int64 [P], the user id of each of ``new_items``, as in column 0 of ``user``; None as well.
        feedback_items: int64 [Q, F_i], the samples of the split whose labels may be written once this batch is over:
            those before the moment of the next batch's first sample that no earlier batch carried. The last batch
            carries the rest. None without ``BatchLoader(feedback=True)``.
        feedback_users: int64 [Q], the user id of each of ``feedback_items``; None as well.
        feedback_labels: float32 [Q], their labels; None as well.
    """

    user: Tensor
    item: Tensor
    context: Tensor
    numeric: Tensor
    history: Tensor
    history_mask: Tensor
    label: Tensor
    group: Tensor
    found: Tensor | None = None
    found_mask: Tensor | None = None
    new_items: Tensor | None = None
    new_users: Tensor | None = None
    feedback_items: Tensor | None = None
    feedback_users: Tensor | None = None
    feedback_labels: Tensor | None = None

    def __len__(self) -> int:
        return self.label.shape[0]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch with every tensor on ``device``."""
        tensors = {name: tensor for name, tensor in vars(self).items() if tensor is not None}
        return Batch(**{name: tensor.to(device, non_blocking=non_blocking) for name, tensor in tensors.items()})
