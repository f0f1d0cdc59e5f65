"""The providers of every comparison: this library, plain torch, plain torch compiled, and peers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from benchmarks.kernels.peers import fbgemm_provider, pkm_provider
from benchmarks.kernels.plain_torch import torch_bag, torch_layer, torch_router
from benchmarks.kernels.problems import Problem
from benchmarks.kernels.provider import Bound, Provider, leaves_of
from lmn_kernels import gather_aggregate, memory_lookup, product_key_topk


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


def _provider(
    name: str, note: str, *, router: object = None, bag: object = None, layer: object = None, **more: bool
) -> Provider:
    binders = {"router": (_bind_router, router), "bag": (_bind_bag, bag), "layer": (_bind_layer, layer)}
    bound = {op: partial(bind, run) for op, (bind, run) in binders.items() if run is not None}
    return Provider(name, note, bound, **more)


_compile = partial(torch.compile, fullgraph=True, dynamic=False)


@cache
def all_providers() -> dict[str, Provider]:
    """Every provider by name, absent ones too; this library first."""
    providers = (
        _provider(
            "lmn",
            "this library, the values' gradient as sparse rows",
            router=product_key_topk,
            bag=partial(gather_aggregate, sparse_grad=True),
            layer=partial(_lmn_layer, sparse=True),
            wide_scores=True,
            sparse_rows=True,
        ),
        _provider(
            "lmn_dense",
            "this library, the values' gradient dense",
            bag=gather_aggregate,
            layer=partial(_lmn_layer, sparse=False),
            wide_scores=True,
        ),
        _provider(
            "torch",
            "plain torch as published layers write it, dense gradient",
            router=torch_router,
            bag=torch_bag,
            layer=torch_layer,
        ),
        _provider(
            "torch_sparse",
            "plain torch, `embedding_bag(sparse=True)`: uncoalesced rows",
            bag=partial(torch_bag, sparse=True),
            layer=partial(torch_layer, sparse=True),
            sparse_rows=True,
        ),
        _provider(
            "compile",
            "plain torch under `torch.compile`, dense gradient",
            router=_compile(torch_router),
            bag=_compile(torch_bag),
            layer=_compile(torch_layer),
            compiled=True,
        ),
        pkm_provider(),
        fbgemm_provider(),
    )
    return {provider.name: provider for provider in providers}
