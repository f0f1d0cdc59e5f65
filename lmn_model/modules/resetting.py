"""``reset_parameters`` as torch's own modules have it: a module is set to what its constructor made of it.

Parameters are drawn and buffers restored in place, in the order of the constructor, so that under one seed a reset
module equals a new one bit for bit. A layer that does not start as torch's own has a class with a ``reset_parameters``
of its own: whoever resets module by module, as FSDP2's initialisation from the meta device does, then gets that start.
"""

from __future__ import annotations

import torch
from torch import nn


def reset_children(module: nn.Module) -> None:
    """Reset the children of ``module`` in the order in which they were registered."""
    for child in module.children():
        reset = getattr(child, "reset_parameters", None)
        if callable(reset):
            reset()
        else:
            reset_children(child)


class ZeroLinear(nn.Linear):
    """A linear layer whose weight and bias are 0 at first."""

    def reset_parameters(self) -> None:
        """Set weight and bias to 0."""
        super().reset_parameters()  # advances the generator as torch's layer does
        for parameter in (self.weight, self.bias):
            nn.init.zeros_(parameter)


class PairMap(nn.Linear):
    """A linear map of [item ; user] in which both move the output alike at first, however wide each is.

    Args:
        of: the layer whose parameters it takes over; nothing is drawn.
        item_dim: columns of the item; the rest are the user's.
    """

    def __init__(self, of: nn.Linear, item_dim: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.item_dim = of.in_features, of.out_features, item_dim
        self.weight, self.bias = of.weight, of.bias

    def reset_parameters(self) -> None:
        """Draw the weight, with variance 1 / 2 of each part's sum, and set the bias to 0."""
        for part in self.weight.split([self.item_dim, self.in_features - self.item_dim], dim=1):
            nn.init.normal_(part, std=(2 * part.shape[1]) ** -0.5)
        nn.init.zeros_(self.bias)


class EmbeddingTable(nn.Embedding):
    """``torch.nn.Embedding`` with padding at id 0, whose other rows have ``std`` at first."""

    std: float | None = None
    """Set after construction; until then the table is drawn as torch draws it."""

    def reset_parameters(self) -> None:
        """Draw the rows, and set the padding to 0."""
        if self.std is None:
            super().reset_parameters()
            return
        if not hasattr(self.weight, "placements"):
            nn.init.normal_(self.weight[1:], std=self.std)
            nn.init.zeros_(self.weight[:1])
            return
        with torch.no_grad():  # a slice of a DTensor's rows is a copy of them
            rows = torch.empty_like(self.weight[1:]).normal_(std=self.std)
            self.weight.copy_(torch.cat((torch.zeros_like(self.weight[:1]), rows)))
