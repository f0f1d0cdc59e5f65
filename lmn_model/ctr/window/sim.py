"""SIM: search a long history for the events relevant to the candidate, then attend to those alone.

Hard search selects by category in the whole history, outside the model: the batch holds the events that it found. Soft
search selects by inner product among the embeddings of a long window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmn_kernels.checks import check_int
from lmn_model.ctr.window.base import WindowModel
from lmn_model.ctr.window.din import DIN
from lmn_model.modules.parametrized import current


class SIMHard(WindowModel):
    """DIN attention to the events found by category, beside DIN attention to the recent window.

    ``[sum_s m_s a_long(f_s, c) f_s ; sum_t m_t a_short(h_t, c) h_t]`` with two attention networks.

    Args:
        width: E, width of an item embedding.
        hidden: hidden width of both attention networks.

    Source: Pi et al. 2020, Search-based Interest Model, arXiv 2006.05639, section 3.2 (general search unit, hard) and
    3.3 (exact search unit). Ours, and simpler: the exact unit is DIN's attention, where the paper has several heads and
    an embedding of the time between event and candidate.
    """

    interests = 2
    searches = True

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.long = DIN(width, hidden)
        self.short = DIN(width, hidden)

    def forward(
        self,
        item: Tensor,
        history: Tensor,
        mask: Tensor,
        found: Tensor | None = None,
        found_mask: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`WindowModel.forward`; ``[B, 2 E]``, the events that were found first.

        Raises:
            ValueError: there is no ``found`` or no ``found_mask``.
        """
        if found is None or found_mask is None:
            raise ValueError(
                "window = 'sim_hard' needs batches with found and found_mask, the events that share the candidate's "
                "category; these have none"
            )
        return torch.cat((self.long(item, found, found_mask), self.short(item, history, mask)), dim=-1)


class SIMSoft(WindowModel):
    """DIN attention to the events nearest to the candidate, beside DIN attention to the newest events.

    A position's score is the inner product ``(W_h h_t) . (W_c c)``; the ``top_k`` highest real positions, the newer one
    on a tie, go into one attention network, the newest ``recent`` positions into another.

    The selection has no gradient, so the two maps would never learn. Here they learn from an auxiliary interest, the
    sum of the whole window weighted by those scores, which is the third interest of the output.

    Args:
        width: E, width of an item embedding.
        hidden: hidden width of both attention networks.
        top_k: events that the search keeps.
        recent: newest positions of the window that the second attention reads.

    Source: Pi et al. 2020, Search-based Interest Model, arXiv 2006.05639, section 3.2 (general search unit, soft) and
    3.3 (exact search unit). Ours, and simpler: the paper trains the maps with a click loss of their own on the weighted
    sum and searches an index; we give the weighted sum, divided by the number of real positions, to the tower and
    score all positions. The exact unit is DIN's attention, without an embedding of time.
    """

    interests = 3

    def __init__(self, width: int, hidden: int = 64, *, top_k: int = 50, recent: int = 50) -> None:
        super().__init__()
        width = check_int("SIMSoft", "width", width, low=1)
        self.top_k = check_int("SIMSoft", "top_k", top_k, low=1)
        self.recent = check_int("SIMSoft", "recent", recent, low=1)
        self.position_map = nn.Linear(width, width, bias=False)
        self.candidate_map = nn.Linear(width, width, bias=False)
        self.long = DIN(width, hidden)
        self.short = DIN(width, hidden)

    def forward(
        self,
        item: Tensor,
        history: Tensor,
        mask: Tensor,
        found: Tensor | None = None,
        found_mask: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`WindowModel.forward`; ``[B, 3 E]``: events found, newest events, auxiliary interest."""
        scores = self.scores(item, history)  # [B, T]
        real = mask.sum(1, keepdim=True).clamp_min(1)
        weighted = torch.bmm((scores.masked_fill(~mask, 0) / real).unsqueeze(1), history).squeeze(1)  # [B, E]
        places = self.search(scores, mask)  # [B, k]
        near = history.gather(1, places.unsqueeze(-1).expand(-1, -1, history.shape[2]))  # [B, k, E]
        long = self.long(item, near, mask.gather(1, places))
        short = self.short(item, history[:, -self.recent :], mask[:, -self.recent :])
        return torch.cat((long, short, weighted), dim=-1)

    def scores(self, item: Tensor, history: Tensor) -> Tensor:
        """``(W_h h_t) . (W_c c)`` of every position, ``[B, T]``; both maps become one vector a row."""
        query = self.candidate_map(item) @ current(self.position_map, "weight")  # [B, E]: W_h^T W_c c
        return torch.bmm(history, query.unsqueeze(2)).squeeze(2)

    def search(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Places of the ``min(top_k, T)`` highest real positions, int64 ``[B, k]``, in the order of the window.

        Where a row has fewer real positions, padding fills the rest. The selection has no gradient.
        """
        window = mask.shape[1]
        if self.top_k >= window:
            return torch.arange(window, device=mask.device).expand_as(mask)
        ranked = scores.detach().masked_fill(~mask, float("-inf")).flip(1)  # newest first, so that it wins a tie
        places = torch.sort(ranked, dim=1, descending=True, stable=True).indices[:, : self.top_k]
        return (window - 1 - places).sort(dim=1).values
