"""What a history says about a candidate: mean pooling and DIN.

Both turn ``history [B, T, E]``, ``mask [B, T]`` and the candidate ``item [B, E]`` into an interest ``[B, E]``; an empty
history gives zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MeanPooling(nn.Module):
    """Mean of the real positions of the history."""

    def forward(self, item: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        real = mask.unsqueeze(-1).to(history.dtype)  # [B, T, 1]
        return (history * real).sum(1) / real.sum(1).clamp_min(1)


class DeepInterestAttention(nn.Module):
    """Sum of the history weighed by a small network of (position, candidate).

    Args:
        width: E, width of an item embedding.
        hidden: width of the attention network's hidden layer.

    Source: Zhou et al. 2018, Deep Interest Network, arXiv 1706.06978, section 4.3: weights are not normalised, so that
    their sum tells how strong the interest is.
    """

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(4 * width, hidden), nn.PReLU(), nn.Linear(hidden, 1))

    def forward(self, item: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        candidate = item.unsqueeze(1).expand_as(history)
        relation = torch.cat((history, candidate, history - candidate, history * candidate), dim=-1)  # [B, T, 4E]
        weights = self.score(relation).squeeze(-1).masked_fill(~mask, 0)  # [B, T]
        return torch.bmm(weights.unsqueeze(1), history).squeeze(1)
