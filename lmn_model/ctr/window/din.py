"""Attention of a candidate to a window, unnormalised: the Deep Interest Network's.

Its network looks at ``[h ; c ; h - c ; h * c]``, 4 E columns for each position. Its first layer is linear, so it splits
into what depends on the position, on the candidate and on both:

    W [h ; c ; h - c ; h * c] = (W1 + W3) h + (W2 - W3) c + W4 (h * c) = (W1 + W3 + W4 diag(c)) h + (W2 - W3) c.

The candidate's part is one product a row, and the rest one product of E columns with a matrix of the row's own: a
quarter of the work, and no tensor of 4 E columns. On a CPU, rows are taken a few at a time, so that what they pass from
one operation to the next stays in the cache; where three positions in four are padding, only the real ones are worked
on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmn_kernels.checks import check_int
from lmn_model.ctr.window.base import InterestPart
from lmn_model.ctr.window.din_cpu import FusedAttention, chunks
from lmn_model.modules.parametrized import current


class DeepInterestAttention(InterestPart):
    """Sum of the window weighed by a small network of (position, candidate): ``sum_t m_t a(h_t, c) h_t``.

    Args:
        width: E, width of an item embedding.
        hidden: width of the attention network's hidden layer, or of each of its layers.

    Source: Zhou et al. 2018, Deep Interest Network, arXiv 1706.06978, section 4.3: weights are not normalised, so that
    their sum tells how strong the interest is. The split of the first layer is ours.
    """

    def __init__(self, width: int, hidden: int | tuple[int, ...] = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        wide = 4 * check_int("DeepInterestAttention", "width", width, low=1)
        widths = hidden if isinstance(hidden, (tuple, list)) else (hidden,)
        for each in (check_int("DeepInterestAttention", "hidden", each, low=1) for each in widths):
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
        """See :meth:`InterestPart.forward`; ``[B, E]``."""
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
        """The interest ``[B, E]`` of a network with one hidden layer, see :class:`FusedAttention`."""
        by_position, by_candidate, by_both = self._split(item)
        _, activation, out = self.score
        slope, weight, bias = current(activation, "weight"), current(out, "weight").squeeze(0), current(out, "bias")
        return FusedAttention.apply(item, history, mask, by_position, by_candidate, by_both, slope, weight, bias)  # type: ignore[no-any-return]

    def _padded(self, item: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """The interest ``[B, E]`` by work on every position, with a matrix for each row."""
        by_position, by_candidate, by_both = self._split(item)
        own = torch.addcmul(by_position.t(), item.unsqueeze(2), by_both.t())  # [B, E, A]
        hidden = torch.baddbmm(by_candidate.unsqueeze(1), history, own)  # [B, T, A]
        weights = self._rest(hidden).masked_fill(~mask, 0)  # [B, T]
        return torch.bmm(weights.unsqueeze(1), history).squeeze(1)

    def _packed(self, item: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """The interest ``[B, E]`` by work on the P real positions alone, twice as much for each."""
        rows, places = mask.nonzero(as_tuple=True)  # [P]
        real = history[rows, places]  # [P, E]
        by_position, by_candidate, by_both = self._split(item)
        both = torch.cat((real, real * item[rows]), dim=1)  # [P, 2E]
        hidden = torch.addmm(by_candidate[rows], both, torch.cat((by_position, by_both), dim=1).t())  # [P, A]
        weighed = self._rest(hidden).unsqueeze(1) * real
        return torch.zeros_like(item).index_add(0, rows, weighed)

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
