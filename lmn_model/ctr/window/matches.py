"""Window match features: count and recency of the candidate's ids in the window. Nothing is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmn_kernels.checks import check_int


class WindowMatchFeatures(nn.Module):
    """Count and recency of each feature value of the candidate in a window.

    A memory that was written up to some moment lacks the events after it, which the window holds. These features give
    them to the tower as counts, like the memory's own features, while attention has to infer from embeddings whether
    two events are alike.

    Args:
        unseen: id that all values without an id in training share; it matches nothing. None if there is no such id.
    """

    SIGNALS = 2

    def __init__(self, unseen: int | None = None) -> None:
        super().__init__()
        self.unseen = None if unseen is None else check_int("WindowMatchFeatures", "unseen", unseen)

    def forward(self, item: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Two features for each of the F ids: ``log(1 + count)``, and the position of the newest match.

        Positions count from the oldest one of the window and are divided by T: 1 is the newest position, 0 means no
        match.

        Args:
            item: ids ``[B, F]``, the candidate.
            history: ids ``[B, T, F]``, the window, oldest first.
            mask: bool ``[B, T]``, True where ``history`` is real.

        Returns:
            float32 ``[B, 2 F]``, all counts before all positions.
        """
        same = (history == item.unsqueeze(1)) & mask.unsqueeze(2)  # [B, T, F]
        if self.unseen is not None:
            same = same & (item != self.unseen).unsqueeze(1)
        if same.shape[1] == 0:
            return torch.zeros(len(item), 2 * item.shape[1], dtype=torch.float32, device=item.device)
        positions = torch.arange(1, same.shape[1] + 1, dtype=torch.float32, device=item.device) / same.shape[1]  # [T]
        newest = (same * positions.unsqueeze(1)).amax(1)
        return torch.cat((same.sum(1).float().log1p(), newest), dim=1)
