"""Activations, which map scores to weights, and their gradient, computed from the weights alone."""

from __future__ import annotations

import torch
from torch import Tensor

ACTIVATIONS = ("softmax", "sigmoid", "relu")


def activate(scores: Tensor, activation: str) -> Tensor:
    """Weights ``[..., K]`` of scores ``[..., K]``, never NaN for scores without NaN.

    Softmax maps equal scores to equal weights, infinite ones included: a row of -inf is uniform, and several +inf have
    equal weights that sum to 1.
    """
    if activation == "sigmoid":
        return scores.sigmoid()
    if activation == "relu":
        return scores.relu()
    best = scores.amax(-1, keepdim=True)
    shares = torch.where(scores == best, 0.0, scores - best).exp()
    return shares / shares.sum(-1, keepdim=True)


def activation_backward(grad_weights: Tensor, weights: Tensor, activation: str) -> Tensor:
    """Gradient of the scores, all ``[..., K]``."""
    if activation == "sigmoid":
        return grad_weights * weights * (1 - weights)
    if activation == "relu":
        return grad_weights.masked_fill(weights == 0, 0)
    return weights * (grad_weights - (grad_weights * weights).sum(-1, keepdim=True))
