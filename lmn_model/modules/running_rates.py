"""Running click rates of items and users, and the rate that is expected of a pair."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_PRIOR = 10.0
"""So many samples of the overall rate stand beside the samples of an item or a user."""


class RunningRates(nn.Module):
    """Counts of samples and of positives for each item and each user, up to now. Nothing has a gradient.

    Args:
        items: rows for items.
        users: rows for users.
        device: of the counts; None for torch's default.
    """

    SIGNALS = 3

    def __init__(self, items: int, users: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.item_counts: Tensor
        self.user_counts: Tensor
        self.total: Tensor
        for name, shape in (("item_counts", (items, 2)), ("user_counts", (users, 2)), ("total", (2,))):
            counts = torch.zeros(shape, dtype=torch.int64, device=device)  # float32 stops counting at 2^24
            self.register_buffer(name, counts)

    def reset_parameters(self) -> None:
        """Set all counts to 0."""
        for counts in (self.item_counts, self.user_counts, self.total):
            counts.zero_()

    @torch.no_grad()
    def forward(self, item: Tensor, user: Tensor) -> Tensor:
        """Logits of the rates of items ``[B]`` and users ``[B]``, as rows, and of their pairs.

        Returns:
            ``[B, 3]``: of the item's rate, of the user's, and of the pair's expected rate, which is the sum of the two
            less the logit of the overall rate. Each rate counts ten more samples of the overall rate. Float32.
        """
        overall = (self.total[1] + 1) / (self.total[0] + 2)
        of_item, of_user = (_rate(counts, overall) for counts in (self.item_counts[item], self.user_counts[user]))
        logits = torch.stack((of_item, of_user), dim=1).logit()
        return torch.cat((logits, logits.sum(1, keepdim=True) - overall.logit()), dim=1)

    @torch.no_grad()
    def add(self, item: Tensor, user: Tensor, label: Tensor) -> None:
        """Count samples: rows of items ``[P]`` and of users ``[P]``, and labels ``[P]``, 0 or 1."""
        counted = torch.stack((torch.ones_like(item), label.long()), dim=1)
        self.item_counts.index_add_(0, item, counted)
        self.user_counts.index_add_(0, user, counted)
        self.total.add_(counted.sum(0))


def _rate(counts: Tensor, overall: Tensor) -> Tensor:
    """``[B]`` of counts of samples and positives ``[B, 2]``."""
    return (counts[:, 1] + _PRIOR * overall) / (counts[:, 0] + _PRIOR)
