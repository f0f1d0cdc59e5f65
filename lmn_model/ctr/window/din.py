"""DIN: unnormalised attention of the candidate to the events of the window.

The attention network reads ``[h ; c ; h - c ; h * c]``, 4 E columns for each position. Its first layer is linear, so it
splits into terms of the position, of the candidate and of both:

    W [h ; c ; h - c ; h * c] = (W1 + W3) h + (W2 - W3) c + W4 (h * c) = (W1 + W3 + W4 diag(c)) h + (W2 - W3) c.

The candidate's term is one product a row; the rest is one product of E columns with a matrix for each row: a quarter of
the work, and no tensor of 4 E columns. A CPU takes a few rows at a time, so that their intermediate results stay in the
cache. Where three positions in four are padding, it computes on the real ones alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmn_kernels.checks import check_int
from lmn_model.ctr.window.base import WindowModel
from lmn_model.ctr.window.din_cpu import FusedAttention, chunks
from lmn_model.modules.parametrized import current


class DIN(WindowModel):
    """Deep Interest Network: the events weighted by a small network a, ``sum_t m_t a(h_t, c) h_t``.

    Args:
        width: E, width of an item embedding.
        hidden: width of the attention network's hidden layer, or of each of its layers.

    Source: Zhou et al. 2018, Deep Interest Network, arXiv 1706.06978, section 4.3: weights are not normalised, so that
    their sum measures the strength of the interest. The split of the first layer is ours.
    """

    def __init__(self, width: int, hidden: int | tuple[int, ...] = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        wide = 4 * check_int("DIN", "width", width, low=1)
        widths = hidden if isinstance(hidden, (tuple, list)) else (hidden,)
        for each in (check_int("DIN", "hidden", each, low=1) for each in widths):
            layers += [nn.Linear(wide, each), nn.PReLU()]
            wide = each
        self.score = nn.Sequential(*layers, nn.Linear(wide, 1))

    def forward(
        self,
        item: Tensor,
        history: Tensor,
        mask: Tensor,
        found: Tensor | None = None,
        found_mask: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`WindowModel.forward`; ``[B, E]``."""
        if item.device.type != "cpu":
            return self._padded(item, history, mask)
        if 4 * int(mask.count_nonzero()) < mask.numel():
            return self._packed(item, history, mask)
        if len(self.score) == 3:
            return self._fused(item, history, mask)
        return torch.cat(
            [self._padded(item[rows], history[rows], mask[rows]) for rows in chunks(mask)] or [torch.zeros_like(item)]
        )

    def _fused(self, item: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """``[B, E]`` for a network with one hidden layer; see :class:`FusedAttention`."""
        by_position, by_candidate, by_both = self._split(item)
        _, activation, out = self.score
        slope, weight, bias = current(activation, "weight"), current(out, "weight").squeeze(0), current(out, "bias")
        return FusedAttention.apply(item, history, mask, by_position, by_candidate, by_both, slope, weight, bias)  # type: ignore[no-any-return]

    def _padded(self, item: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """``[B, E]``, computed on every position with a matrix for each row."""
        by_position, by_candidate, by_both = self._split(item)
        own = torch.addcmul(by_position.t(), item.unsqueeze(2), by_both.t())  # [B, E, A]
        hidden = torch.baddbmm(by_candidate.unsqueeze(1), history, own)  # [B, T, A]
        weights = self._rest(hidden).masked_fill(~mask, 0)  # [B, T]
        return torch.bmm(weights.unsqueeze(1), history).squeeze(1)

    def _packed(self, item: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """``[B, E]``, computed on the P real positions alone, at twice the cost for each."""
        rows, places = mask.nonzero(as_tuple=True)  # [P]
        real = history[rows, places]  # [P, E]
        by_position, by_candidate, by_both = self._split(item)
        both = torch.cat((real, real * item[rows]), dim=1)  # [P, 2E]
        hidden = torch.addmm(by_candidate[rows], both, torch.cat((by_position, by_both), dim=1).t())  # [P, A]
        weighted = self._rest(hidden).unsqueeze(1) * real
        return torch.zeros_like(item).index_add(0, rows, weighted)

    def _split(self, item: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The first layer as W1 + W3 ``[A, E]``, (W2 - W3) c + bias ``[B, A]`` and W4 ``[A, E]``."""
        first = self.score[0]
        w1, w2, w3, w4 = current(first, "weight").split(item.shape[1], dim=1)
        return w1 + w3, torch.addmm(current(first, "bias"), item, (w2 - w3).t()), w4

    def _rest(self, hidden: Tensor) -> Tensor:
        """Everything after the first linear layer: ``[..., A]`` to ``[...]``."""
        for layer in list(self.score)[1:]:
            hidden = layer(hidden)
        return hidden.squeeze(-1)
