"""What the window holds of the candidate itself: a count, with nothing to learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmn_kernels.checks import check_int


class WindowMatches(nn.Module):
    """How often and how lately each feature value of the candidate occurs in a window.

    A memory that was written up to some moment does not hold what came after it. The window does, and this tells it in
    the memory's own terms, event by event, where attention has to find out from embeddings when two events are alike.

    Args:
        unseen: id that all values share which training never saw, so that it matches nothing; None if there is none.
    """

    SIGNALS = 2

    def __init__(self, unseen: int | None = None) -> None:
        super().__init__()
        self.unseen = None if unseen is None else check_int("WindowMatches", "unseen", unseen)

    def forward(self, item: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Two numbers for each of the F features: ``log(1 + count)``, and the place of the newest match.

        The place counts from the oldest position of the window and is divided by T, so that it is 1 for the newest
        position and 0 without a match.

        Args:
            item: ids ``[B, F]``, the candidate.
            history: ids ``[B, T, F]``, the window, oldest first.
            mask: bool ``[B, T]``, True where ``history`` is real.

        Returns:
            float32 ``[B, 2 F]``, the counts of all features before the places.
        """
        same = (history == item.unsqueeze(1)) & mask.unsqueeze(2)  # [B, T, F]
        if self.unseen is not None:
            same = same & (item != self.unseen).unsqueeze(1)
        if same.shape[1] == 0:
            return torch.zeros(len(item), 2 * item.shape[1], dtype=torch.float32, device=item.device)
        places = torch.arange(1, same.shape[1] + 1, dtype=torch.float32, device=item.device) / same.shape[1]  # [T]
        newest = (same * places.unsqueeze(1)).amax(1)
        return torch.cat((same.sum(1).float().log1p(), newest), dim=1)
