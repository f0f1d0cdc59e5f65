"""DIN attention on a CPU, forward and backward, a few rows at a time.

Autograd keeps several tensors ``[B, T, A]`` of the hidden layer, and every operation reads them from main memory. Here
a chunk of rows goes through all operations while it is in the cache. The hidden layer is not kept; the backward pass
recomputes it, which costs one product and still saves time and memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

POSITIONS = 3200
"""Positions of a chunk on one thread, chosen by measurement."""
SHARED = 16
"""Factor on ``POSITIONS`` with several threads: each operation waits for all of them, so chunks must be few."""


class FusedAttention(torch.autograd.Function):
    """``sum_t m_t (v . prelu(z_t) + b) h_t`` with ``z_t = (P + Q diag(c)) h_t + q``, for each row.

    Args of ``apply``: item c ``[B, E]``, history h ``[B, T, E]``, mask m bool ``[B, T]``, by_position P ``[A, E]``,
    by_candidate q ``[B, A]``, by_both Q ``[A, E]``, slope of the PReLU ``[1]``, out_weight v ``[A]``, out_bias b
    ``[1]``. Returns ``[B, E]``. Differentiable once, in all but the mask.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        item, history, mask, by_position, by_candidate, by_both, slope, out_weight, out_bias = inputs
        weights = history.new_empty(mask.shape)  # [B, T]
        for rows in chunks(mask):
            _, hidden = _hidden(item[rows], history[rows], by_position, by_candidate[rows], by_both)
            linear = hidden @ out_weight  # [n, T]
            positive = hidden.clamp_min_(0) @ out_weight
            weights[rows] = torch.lerp(positive, linear, slope).add_(out_bias)
        weights.masked_fill_(~mask, 0)
        ctx.save_for_backward(*inputs, weights)
        return torch.bmm(weights.unsqueeze(1), history).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        item, history, mask, by_position, by_candidate, by_both, slope, out_weight, _, weights = ctx.saved_tensors
        of_item, of_history, of_candidate = torch.empty_like(item), torch.empty_like(history), by_candidate * 0
        of_position, of_both = torch.zeros_like(by_position.t()), torch.zeros_like(by_both.t())  # [E, A]
        of_weights = torch.bmm(history, grad.unsqueeze(2)).squeeze(2).masked_fill_(~mask, 0)  # [B, T]
        positive, linear = torch.zeros_like(out_weight), torch.zeros_like(out_weight)
        factor = float(slope)
        for rows in chunks(mask):
            c, h, down = item[rows], history[rows], of_weights[rows]
            own, hidden = _hidden(c, h, by_position, by_candidate[rows], by_both)
            flat, along = hidden.flatten(0, 1), down.reshape(-1)  # [n T, A], [n T]
            linear.addmv_(flat.t(), along)
            of_hidden = torch.ops.aten.leaky_relu_backward(down.unsqueeze(2) * out_weight, hidden, factor, False)
            positive.addmv_(flat.clamp_min_(0).t(), along)
            torch.bmm(of_hidden, own.transpose(1, 2), out=of_history[rows])
            of_history[rows].addcmul_(weights[rows].unsqueeze(2), grad[rows].unsqueeze(1))
            of_candidate[rows] = of_hidden.sum(1)
            of_own = torch.bmm(h.transpose(1, 2), of_hidden)  # [n, E, A]
            of_position += of_own.sum(0)
            of_item[rows] = torch.einsum("nea,ae->ne", of_own, by_both)
            of_both += of_own.mul_(c.unsqueeze(2)).sum(0)
        negative = linear - positive
        of_slope = (negative @ out_weight).reshape(1)
        of_out = torch.lerp(positive, linear, slope)
        return (
            of_item,
            of_history,
            None,
            of_position.t(),
            of_candidate,
            of_both.t(),
            of_slope,
            of_out,
            of_weights.sum().reshape(1),
        )


def chunks(mask: Tensor) -> list[slice]:
    """The rows of ``mask [B, T]`` in slices of about ``POSITIONS`` positions, at least one row each."""
    positions = POSITIONS * (SHARED if torch.get_num_threads() > 1 else 1)
    rows = max(1, positions // max(1, mask.shape[1]))
    return [slice(first, first + rows) for first in range(0, mask.shape[0], rows)]


def _hidden(
    item: Tensor, history: Tensor, by_position: Tensor, by_candidate: Tensor, by_both: Tensor
) -> tuple[Tensor, Tensor]:
    """A matrix for each row, ``[n, E, A]``, and the hidden layer before its PReLU, ``[n, T, A]``."""
    own = torch.addcmul(by_position.t(), item.unsqueeze(2), by_both.t())
    return own, torch.baddbmm(by_candidate.unsqueeze(1), history, own)
