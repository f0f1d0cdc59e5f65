"""The interface of all window models."""

from __future__ import annotations

from torch import Tensor, nn

from lmn_model.modules.resetting import reset_children


class WindowModel(nn.Module):
    """Base of the window models.

    Attributes:
        interests: I, how many interest vectors of E columns the model returns side by side.
        searches: whether the model reads ``found``, the events that a search in the whole history gave.
    """

    interests = 1
    searches = False

    def reset_parameters(self) -> None:
        """Draw the parameters as the constructor does."""
        reset_children(self)

    def forward(
        self,
        item: Tensor,
        history: Tensor,
        mask: Tensor,
        found: Tensor | None = None,
        found_mask: Tensor | None = None,
    ) -> Tensor:
        """The interest in a candidate.

        Args:
            item: float ``[B, E]``, the candidate.
            history: float ``[B, T, E]``, the window, oldest event first; padding is in front and has no effect.
            mask: bool ``[B, T]``, True where ``history`` is real.
            found: float ``[B, S, E]``, events that a search in the whole history gave; None without a search.
            found_mask: bool ``[B, S]``, True where ``found`` is real.

        Returns:
            float ``[B, I * E]``; zeros for a row without events.
        """
        raise NotImplementedError
