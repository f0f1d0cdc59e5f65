"""A provider of an op, bound to a problem so that it can be run, checked and timed.

All providers of an op compute the same maths at the same level, from the same inputs to the same output and gradients;
``correctness.py`` compares each to float64 before it is timed. A provider's note says what differs: whether the
values' gradient is dense, as the published layers have it, or sparse rows, as this library's modules have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.kernels.problems import Problem


@dataclass(frozen=True)
class Bound:
    """A provider that holds a problem and can be run.

    Attributes:
        run: computes the output and names the slots chosen ``[B, H, K]``, None for a bag.
        leaves: the tensors that get a gradient, by their names in the problem.
        grad: gradient of the output, in its type.
        restore: turns gradients by name from the provider's layout into that of the problem.
    """

    run: Callable[[], tuple[Tensor, Tensor | None]]
    leaves: dict[str, Tensor]
    grad: Tensor
    restore: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda gradients: gradients

    def forward(self) -> Tensor:
        """The output, without a graph."""
        with torch.no_grad():
            return self.run()[0]

    def graph(self) -> Tensor:
        """The output, with a graph."""
        return self.run()[0]

    def backward(self, output: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the leaves from a fresh :meth:`graph`."""
        return torch.autograd.grad(output, tuple(self.leaves.values()), self.grad.to(output.dtype))

    def both(self) -> tuple[Tensor, ...]:
        """Output and gradients of the leaves."""
        output = self.graph()
        return output, *self.backward(output)


@dataclass(frozen=True)
class Provider:
    """One implementation to compare.

    Attributes:
        name: in result files and tables.
        note: one line for the reader of a table.
        ops: binds a problem, by op; ops that it lacks are missing.
        wide_scores: scores are kept in float32 whatever the inputs are.
        sparse_rows: the values' gradient is rows, not a table.
        absent: why it cannot run here, None if it can.
        compiled: its first calls compile for tens of seconds.
    """

    name: str
    note: str
    ops: Mapping[str, Callable[[Problem], Bound]]
    wide_scores: bool = False
    sparse_rows: bool = False
    absent: str | None = None
    compiled: bool = False


def leaves_of(problem: Problem) -> dict[str, Tensor]:
    """The problem's differentiable inputs as leaves that need a gradient; the memory is shared."""
    return {name: tensor.detach().requires_grad_() for name, tensor in problem.tensors.items()}
