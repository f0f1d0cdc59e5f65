"""How the memory features reach the logit besides entering the tower: a gate of its inputs, or a logit to add."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmn_model.modules.resetting import ZeroLinear


class MemoryGate(nn.Module):
    """Scales each input of the tower by 0 to 2, computed from the memory features; by 1 at first.

    Args:
        memory_features: width of the memory features.
        inputs: width of the inputs that are scaled.

    Source: the idea of the Memory Scaling Network, arXiv 2602.07526, that read-outs of a memory gate the interaction of
    features, as we read it in the paper's abstract; a re-implementation in its simplest form, a linear map and a
    sigmoid before the tower.
    """

    def __init__(self, memory_features: int, inputs: int) -> None:
        super().__init__()
        self.map = ZeroLinear(memory_features, inputs)

    def reset_parameters(self) -> None:
        """Scale by 1 again."""
        self.map.reset_parameters()

    def forward(self, memory_features: Tensor, inputs: Tensor) -> Tensor:
        """``[B, memory_features]`` and ``[B, inputs]`` to ``[B, inputs]``."""
        return inputs * (2 * torch.sigmoid(self.map(memory_features)))


class MemoryLogit(nn.Sequential):
    """A logit from the memory features alone, to be added to the tower's; 0 at first.

    Memory features that enter the tower combine with every other input, and the tower comes to rely on them everywhere.
    An added logit can only shift the output: where memory features drift, it has less to gain and less to spoil. (A
    gate scales the tower's input all the same.)

    Args:
        memory_features: width of the memory features.
        hidden: width of the hidden layer.

    Source: ours; a shallow network beside the tower is how Cheng et al. 2016, Wide & Deep Learning, arXiv 1606.07792,
    separate counts from embeddings.
    """

    def __init__(self, memory_features: int, hidden: int = 32) -> None:
        out = ZeroLinear(hidden, 1)
        super().__init__(nn.Linear(memory_features, hidden), nn.ReLU(), out)

    def reset_parameters(self) -> None:
        """Draw the hidden layer; the logit is 0 again."""
        for layer in (self[2], self[0]):  # in the order of their construction
            layer.reset_parameters()
