"""Exported programs that return this library's named tuples: saved, loaded, and of any batch size."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from lmn_kernels import AxisTopK, MemoryLookup, ProductKeyTopK, product_key_topk
from lmn_model import FactoredMemoryNetwork, LargeMemoryNetwork, MemoryLayer, MemoryLosses, MemoryReadOut
from lmn_model.ctr import CTROutput
from lmn_model.modules.factored_memory import PairSlots


class Calls(nn.Module):
    """A module that calls a method of another one."""

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self.call = call

    def forward(self, *inputs: Tensor) -> Any:
        return self.call(self.module, *inputs)


def router() -> Calls:
    keys = nn.ParameterList([torch.randn(2, 2, 6, 4)])
    return Calls(keys, lambda keys, queries: product_key_topk(queries, keys[0], 3))


def factored_memory() -> Calls:
    network = FactoredMemoryNetwork([30], 11, code_dim=8, sub_keys=8, top_k=2)
    network(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))  # makes its lists
    return Calls(network, FactoredMemoryNetwork.pair_slots)


CASES: dict[type, tuple[Callable[[], nn.Module], Callable[[int], tuple[Tensor, ...]]]] = {
    MemoryLookup: (
        lambda: Calls(MemoryLayer(5, 4, sub_keys=6, top_k=3, value_std=1.0), MemoryLayer.read),
        lambda B: (torch.randn(B, 5),),
    ),
    ProductKeyTopK: (router, lambda B: (torch.randn(B, 2, 2, 4),)),
    MemoryReadOut: (
        lambda: Calls(LargeMemoryNetwork(3, 2, sub_keys=6, top_k=2), LargeMemoryNetwork.forward),
        lambda B: (torch.randn(B, 3), torch.randn(B, 2)),
    ),
    PairSlots: (factored_memory, lambda B: (torch.randint(30, (B, 1)), torch.randint(11, (B,)))),
}


@pytest.mark.parametrize("returned", CASES)
def test_a_saved_program_returns_the_named_tuple_for_any_batch(returned: type) -> None:
    module, inputs = CASES[returned][0]().eval(), CASES[returned][1]
    example = inputs(4)
    sizes = tuple({0: torch.export.Dim("batch", min=2, max=512)} for _ in example)
    file = io.BytesIO()
    torch.export.save(torch.export.export(module, example, dynamic_shapes=(sizes,)), file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    batch = inputs(9)
    read, expected = loaded(*batch), module(*batch)
    assert type(read) is returned
    for one, other in zip(read, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("returned", [*CASES, MemoryLosses, AxisTopK, CTROutput])
def test_the_structure_of_each_named_tuple_can_be_written_down(returned: Any) -> None:
    leaves, structure = _pytree.tree_flatten(returned(*range(len(returned._fields))))
    again = _pytree.treespec_loads(_pytree.treespec_dumps(structure))
    assert again == structure
    assert type(_pytree.tree_unflatten(leaves, again)) is returned
