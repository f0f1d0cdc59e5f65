"""The call that all interest parts share."""

from __future__ import annotations

from torch import Tensor, nn

from lmn_model.modules.resetting import reset_children


class InterestPart(nn.Module):
    """Base of the interest parts.

    Attributes:
        interests: I, how many interests of E columns the part returns side by side.
        searches: whether the part reads ``found``, the events that a search over the whole history gave.
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
            history: float ``[B, T, E]``, the window, oldest first; padding is in front.
            mask: bool ``[B, T]``, True where ``history`` is real.
            found: float ``[B, S, E]``, what a search over the whole history gave; None where there was no search.
            found_mask: bool ``[B, S]``, True where ``found`` is real.

        Returns:
            float ``[B, I * E]``; zeros for a row without events.
        """
        raise NotImplementedError
