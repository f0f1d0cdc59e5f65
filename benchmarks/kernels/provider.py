"""The sides of every comparison: this library, plain torch, plain torch compiled, and the peers that are installed.

All sides of an op compute the same maths at the same level, from the same inputs to the same output and gradients, and
``correctness.py`` holds each to float64 before a figure is taken. What differs is said in a side's note: whether the
values' gradient is dense, as the published layers have it, or sparse rows, as this library's modules have it.

Plain torch is what the published product-key layers write: scores by einsum, a ``topk`` on each axis, all K x K sums,
``topk`` of them, a gather of their slots, softmax, and ``embedding_bag`` with per-sample weights (on a GPU in bfloat16,
of whose weights ``embedding_bag`` has no gradient, ``embedding`` and a batched product when training).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.kernels.problems import Problem
from lmn_kernels import gather_aggregate, memory_lookup, product_key_topk


@dataclass(frozen=True)
class Bound:
    """A side that holds a problem and can be run.

    Attributes:
        run: computes the output and names the slots chosen ``[B, H, K]``, None for a bag.
        leaves: the tensors that get a gradient, by their names in the problem.
        grad: gradient of the output, in its type.
        restore: turns gradients by name from the side's layout into that of the problem.
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
class Side:
    """One contender.

    Attributes:
        name: of the side in results.
        note: what it is, for the reader of a table.
        ops: how it binds a problem, by op; an op that it does not have is not there.
        wide_scores: scores are kept in float32 whatever the inputs are.
        sparse_rows: the values' gradient is rows, not a table.
        absent: why it cannot be run here, None if it can.
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


def torch_router(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores and slots ``[B, H, K]`` as published layers choose them, in the type of the inputs."""
    N = keys.shape[2]
    dots = torch.einsum("bhac,hanc->bhan", queries, keys)
    best, positions = dots.topk(k, dim=-1)  # [B, H, 2, K]
    sums = (best[:, :, 0, :, None] + best[:, :, 1, None, :]).flatten(2)  # [B, H, K * K]
    slots = (positions[:, :, 0, :, None] * N + positions[:, :, 1, None, :]).flatten(2)
    scores, chosen = sums.topk(k, dim=-1)
    return scores, slots.gather(-1, chosen)


def torch_bag(values: Tensor, slots: Tensor, weights: Tensor, sparse: bool = False) -> Tensor:
    """``[B, D]`` by ``embedding_bag``; ``sparse`` gives the values uncoalesced rows, one for each entry.

    On a GPU it has no gradient of bfloat16 weights: there the rows are gathered, ``[B, L, D]``, and multiplied.
    """
    if values.is_cuda and values.dtype == torch.bfloat16 and torch.is_grad_enabled():
        return torch.einsum("bl,bld->bd", weights, F.embedding(slots, values, sparse=sparse))
    return F.embedding_bag(slots, values, mode="sum", per_sample_weights=weights, sparse=sparse)


def torch_layer(queries: Tensor, keys: Tensor, values: Tensor, k: int, sparse: bool = False) -> tuple[Tensor, Tensor]:
    """Output ``[B, D]`` and slots ``[B, H, K]`` of the whole read."""
    scores, slots = torch_router(queries, keys, k)
    return torch_bag(values, slots.flatten(1), scores.softmax(-1).flatten(1), sparse), slots


def _lmn_layer(queries: Tensor, keys: Tensor, values: Tensor, k: int, sparse: bool) -> tuple[Tensor, Tensor]:
    read = memory_lookup(queries, keys, values, k, sparse_grad=sparse)
    return read.output, read.slots


def _bind_router(router: Callable[..., tuple[Tensor, Tensor]], problem: Problem) -> Bound:
    leaves, k = leaves_of(problem), problem.case.shape.K
    return Bound(lambda: tuple(router(leaves["queries"], leaves["keys"], k)), leaves, problem.grad)


def _bind_layer(layer: Callable[..., tuple[Tensor, Tensor]], problem: Problem) -> Bound:
    leaves, k = leaves_of(problem), problem.case.shape.K
    return Bound(lambda: layer(leaves["queries"], leaves["keys"], leaves["values"], k), leaves, problem.grad)


def _bind_bag(bag: Callable[..., Tensor], problem: Problem) -> Bound:
    leaves = leaves_of(problem)
    return Bound(lambda: (bag(leaves["values"], problem.slots, leaves["weights"]), None), leaves, problem.grad)


def _side(
    name: str, note: str, *, router: object = None, bag: object = None, layer: object = None, **more: bool
) -> Side:
    binders = {"router": (_bind_router, router), "bag": (_bind_bag, bag), "layer": (_bind_layer, layer)}
    return Side(name, note, {op: partial(bind, run) for op, (bind, run) in binders.items() if run is not None}, **more)


_compile = partial(torch.compile, fullgraph=True, dynamic=False)


@cache
def all_sides() -> dict[str, Side]:
    """Every side by name, absent ones too; this library first."""
    from benchmarks.kernels.peers import fbgemm_side, pkm_side

    sides = (
        _side(
            "lmn",
            "this library, the values' gradient as sparse rows",
            router=product_key_topk,
            bag=partial(gather_aggregate, sparse_grad=True),
            layer=partial(_lmn_layer, sparse=True),
            wide_scores=True,
            sparse_rows=True,
        ),
        _side(
            "lmn_dense",
            "this library, the values' gradient dense",
            bag=gather_aggregate,
            layer=partial(_lmn_layer, sparse=False),
            wide_scores=True,
        ),
        _side(
            "torch",
            "plain torch as published layers write it, dense gradient",
            router=torch_router,
            bag=torch_bag,
            layer=torch_layer,
        ),
        _side(
            "torch_sparse",
            "plain torch, `embedding_bag(sparse=True)`: uncoalesced rows",
            bag=partial(torch_bag, sparse=True),
            layer=partial(torch_layer, sparse=True),
            sparse_rows=True,
        ),
        _side(
            "compile",
            "plain torch under `torch.compile`, dense gradient",
            router=_compile(torch_router),
            bag=_compile(torch_bag),
            layer=_compile(torch_layer),
            compiled=True,
        ),
        pkm_side(),
        fbgemm_side(),
    )
    return {side.name: side for side in sides}
