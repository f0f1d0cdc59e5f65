"""Window models that ignore the candidate: the mean of the window, and none at all."""

from __future__ import annotations

from torch import Tensor

from lmn_model.ctr.window.base import WindowModel


class MeanPooling(WindowModel):
    """Mean of the real positions of the window, whatever the candidate: ``sum_t m_t h_t / max(sum_t m_t, 1)``."""

    def forward(
        self,
        item: Tensor,
        history: Tensor,
        mask: Tensor,
        found: Tensor | None = None,
        found_mask: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`WindowModel.forward`; ``[B, E]``."""
        real = mask.to(history.dtype)  # [B, T]
        total = (history * real.unsqueeze(-1)).sum(1)  # [B, E]
        return total / real.sum(1, keepdim=True).clamp_min(1)


class NoWindow(WindowModel):
    """No window: an interest without columns, for a model that reads the history from its memory alone."""

    interests = 0

    def forward(
        self,
        item: Tensor,
        history: Tensor,
        mask: Tensor,
        found: Tensor | None = None,
        found_mask: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`WindowModel.forward`; ``[B, 0]``."""
        return item.new_empty(item.shape[0], 0)
