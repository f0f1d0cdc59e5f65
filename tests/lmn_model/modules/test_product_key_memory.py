"""Sub-keys and values without a query map: look-ups, inactive sub-keys however they are set, and old state dicts."""

from __future__ import annotations

import copy
import doctest
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import lmn_model.modules.product_key_memory
from lmn_model import FactoredMemoryNetwork, LargeMemoryNetwork, ProductKeyMemory
from lmn_model.modules import MemoryUsage, grow, reseed

N, C, D = 12, 4, 7


def make(**options: Any) -> ProductKeyMemory:
    return ProductKeyMemory(D, **{"sub_keys": N, "top_k": 3, "key_dim": C, "value_std": 1.0, **options})


def by_hand(memory: ProductKeyMemory, queries: Tensor, inactive: Tensor) -> Tensor:
    """Read-outs from all N * N sums of scores."""
    scores = torch.einsum("bhac,hanc->bhan", queries, memory.keys).masked_fill(inactive, -torch.inf)
    every_slot = (scores[:, :, 0, :, None] + scores[:, :, 1, None, :]).flatten(2)  # [B, H, M]
    best = every_slot.topk(memory.top_k)
    return torch.einsum("bhk,bhkd->bd", best.values.softmax(-1), memory.values[best.indices])


def half_inactive(heads: int = 1) -> Tensor:
    return (torch.arange(N) % 2 == 0).expand(heads, 2, N).clone()


class Operators(TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def copies_keys(memory: ProductKeyMemory) -> bool:
    """Whether a look-up applies the mask to a copy of the keys."""
    with Operators() as operators:
        memory.look_up(torch.randn(2, memory.heads, 2, C))
    return any("masked_fill" in name for name in operators.names)


def assert_applies_its_mask(memory: ProductKeyMemory, copies: bool | None = None) -> None:
    queries = torch.randn(9, memory.heads, 2, C)
    torch.testing.assert_close(memory.look_up(queries).output, by_hand(memory, queries, memory.inactive))
    if copies is not None:
        assert copies_keys(memory) == copies


@pytest.mark.parametrize("heads", [1, 2])
def test_a_look_up_is_the_weighted_sum_of_the_best_slots(heads: int) -> None:
    memory = make(heads=heads)
    assert_applies_its_mask(memory, copies=False)
    assert set(dict(memory.named_parameters())) == {"keys", "values"}


def write_in_place(memory: ProductKeyMemory) -> None:
    memory.inactive[...] = half_inactive()


def assign(memory: ProductKeyMemory) -> None:
    memory.inactive = half_inactive()


def load(memory: ProductKeyMemory) -> None:
    memory.load_state_dict({**memory.state_dict(), "inactive": half_inactive()})


def load_and_assign(memory: ProductKeyMemory) -> None:
    memory.load_state_dict({**memory.state_dict(), "inactive": half_inactive()}, assign=True)


def swap(memory: ProductKeyMemory) -> None:
    torch.utils.swap_tensors(memory.inactive, half_inactive())


@pytest.mark.parametrize("write", [write_in_place, assign, load, load_and_assign, swap])
def test_every_write_of_the_mask_is_applied(write: Callable[[ProductKeyMemory], None]) -> None:
    memory = make()
    assert not copies_keys(memory)
    write(memory)
    assert int(memory.inactive.sum()) == N
    assert_applies_its_mask(memory, copies=True)
    memory.inactive.zero_()
    assert_applies_its_mask(memory)
    memory.refresh_inactive()
    assert_applies_its_mask(memory, copies=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_a_copy_has_a_mask_of_its_own(copied: Callable[[Any], ProductKeyMemory]) -> None:
    memory = make()
    other = copied(memory)
    assert not copies_keys(other)
    write_in_place(other)
    assert_applies_its_mask(other, copies=True)
    assert_applies_its_mask(memory, copies=False)
    assert_applies_its_mask(copied(other), copies=True)


def test_a_mask_in_the_place_of_a_freed_one_is_applied() -> None:
    memory = make()
    for _ in range(30):
        memory.inactive = torch.zeros(1, 2, N, dtype=torch.bool)
        memory.refresh_inactive()
        del memory.inactive
        memory.register_buffer("inactive", torch.ones(1, 2, N, dtype=torch.bool))
        assert copies_keys(memory)


def test_a_moved_or_cast_memory_needs_no_copy_and_keeps_its_mask() -> None:
    assert not copies_keys(make().double().float())
    memory = make()
    write_in_place(memory)
    assert_applies_its_mask(memory.double().float(), copies=True)
    with torch.device("meta"):
        other = make()
    other.to_empty(device="cpu")
    other.load_state_dict(memory.state_dict())
    assert_applies_its_mask(other, copies=True)


def test_a_mask_in_inference_mode_is_applied() -> None:
    with torch.inference_mode():
        memory = make()
        assert_applies_its_mask(memory)
        memory.inactive[...] = half_inactive()
        assert_applies_its_mask(memory, copies=True)


def test_a_functional_call_applies_the_mask_that_it_is_given() -> None:
    class LookUp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory = make()

        def forward(self, queries: Tensor) -> Tensor:
            return self.memory.look_up(queries).output

    module, queries = LookUp(), torch.randn(9, 1, 2, C)
    found = functional_call(module, {"memory.inactive": half_inactive()}, (queries,))
    torch.testing.assert_close(found, by_hand(module.memory, queries, half_inactive()))
    assert_applies_its_mask(module.memory, copies=False)


@pytest.mark.parametrize("exported", [False, True])
def test_a_graph_applies_what_the_mask_holds_when_it_runs(exported: bool) -> None:
    class LookUp(nn.Module):
        def __init__(self, memory: ProductKeyMemory) -> None:
            super().__init__()
            self.memory = memory

        def forward(self, queries: Tensor) -> Tensor:
            return self.memory.look_up(queries).output

    torch._dynamo.reset()
    module, queries = LookUp(make()), torch.randn(9, 1, 2, C)
    if exported:
        call = torch.export.export(module, (queries,)).module()
    else:
        call = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(call(queries), module(queries))
    for mask in (call.memory.inactive, module.memory.inactive):
        mask[...] = half_inactive()
    torch.testing.assert_close(call(queries), by_hand(module.memory, queries, half_inactive()))


def test_checkpointed_activations_are_recomputed_alike_after_a_write() -> None:
    memory = make(sparse_grad=False)
    queries = torch.randn(9, 1, 2, C, requires_grad=True)
    for write in (lambda: None, lambda: write_in_place(memory), lambda: memory.inactive.zero_()):
        write()
        gradients = []
        for call in (memory.look_up, lambda x: checkpoint(memory.look_up, x, use_reentrant=False)):
            gradients.append(torch.autograd.grad(call(queries).output.square().sum(), (queries, memory.keys)))
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_growing_copies_keys_until_the_last_new_sub_key_is_active() -> None:
    memory = make(top_k=1)
    grow(memory)
    assert int(memory.inactive.sum()) == 2 * N
    assert copies_keys(memory)
    usage = MemoryUsage(2 * N)
    for _ in range(40):
        queries = torch.randn(50, 1, 2, C)
        usage.record(memory.look_up(queries).slots, queries)
        reseed(memory, usage)
        if not memory.inactive.any():
            break
    assert not memory.inactive.any()
    assert not copies_keys(memory)
    write_in_place(grown := make())
    grown.reset_parameters()
    assert not copies_keys(grown)


def old_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict as version 0.1.0 named it."""
    former = "asleep"  # a former name
    names = {name: name.replace("block.", "memory.").replace("inactive", former) for name in module.state_dict()}
    return {names[name]: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(
    "kind",
    [
        make,
        lambda: LargeMemoryNetwork(4, 3, sub_keys=N, top_k=2),
        lambda: FactoredMemoryNetwork([30, 6], 11, sub_keys=N),
        lambda: nn.Sequential(nn.Linear(2, 2), FactoredMemoryNetwork([30, 6], 11, sub_keys=N)),
    ],
)
def test_a_state_dict_with_old_names_loads(kind: Callable[[], nn.Module]) -> None:
    old, new = kind(), kind()
    next(buffer for name, buffer in old.named_buffers() if name.endswith("inactive"))[0, 0, :3] = True
    state = old_state(old)
    assert set(state) != set(old.state_dict())
    given = dict(state)
    new.load_state_dict(state)
    assert state.keys() == given.keys()  # the dict of the caller stays as it is
    for name, tensor in old.state_dict().items():
        assert torch.equal(new.state_dict()[name], tensor), name


def test_errors_name_the_class() -> None:
    with pytest.raises(ValueError, match=r"ProductKeyMemory: top_k must lie in \[1, sub_keys = 12\], got 13"):
        make(top_k=13)


def test_the_example_runs() -> None:
    assert doctest.testmod(lmn_model.modules.product_key_memory).failed == 0
