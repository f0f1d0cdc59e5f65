"""What torch does to modules, done to those of the package: parametrize, prune, copies, casts, functional calls."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from modules_factory import MODULES
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, skip_init

from lmn_model import FactoredMemoryNetwork, LargeMemoryNetwork, MemoryLayer
from lmn_model.ctr.window import DIN, SIMSoft
from lmn_model.modules.growth import grow
from lmn_model.modules.reseeding import reseed
from lmn_model.modules.usage import MemoryUsage

SMALL = {"sub_keys": 6, "top_k": 3, "value_std": 1.0}
HISTORY = (torch.ones(9, 5, dtype=torch.bool), torch.randn(9, 5, 4), torch.ones(9, 5, dtype=torch.bool))
INPUTS: dict[str, tuple[Tensor, ...]] = {
    "layer": (torch.randn(9, 5),),
    "layer with heads": (torch.randn(9, 5),),
    "network": (torch.randn(9, 4), torch.randn(9, 3)),
    "factored": (torch.randint(6, (9, 2)), torch.randint(11, (9,))),
    "without marginals": (torch.randint(6, (9, 2)), torch.randint(11, (9,))),
    "embedding": (torch.randint(6, (9, 2)),),
    "gate": (torch.randn(9, 4), torch.randn(9, 6)),
    "logit": (torch.randn(9, 4),),
    **{
        f"window {name}": (torch.randn(9, 4), torch.randn(9, 5, 4), *HISTORY)
        for name in ("pooling", "din", "sim_hard", "sim_soft", "mimn")
    },
}


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x

    def right_inverse(self, x: Tensor) -> Tensor:
        return x / 2


class Tanh(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh()


def drawn(name: str) -> nn.Module:
    module = MODULES[name]().eval()
    for parameter in module.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    return module


def outputs(module: Callable[..., Any], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    out = module(*inputs)
    return list(out) if isinstance(out, tuple) else [out]


def assert_same(found: list[Tensor], wanted: list[Tensor]) -> None:
    assert len(found) == len(wanted)
    assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


def saved_and_loaded(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "torch.save": saved_and_loaded,
    "share_memory": lambda module: copy.deepcopy(module).share_memory(),
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_computes_the_same(name: str, way: str) -> None:
    module = drawn(name)
    wanted = outputs(module, INPUTS[name])
    assert_same(outputs(COPIES[way](module), INPUTS[name]), wanted)


@pytest.mark.parametrize("name", INPUTS)
def test_a_module_on_meta_takes_over_tensors(name: str) -> None:
    module = drawn(name)
    with torch.device("meta"):
        other = MODULES[name]().eval()
    other.load_state_dict(module.state_dict(), assign=True)
    assert_same(outputs(other, INPUTS[name]), outputs(module, INPUTS[name]))


@pytest.mark.parametrize("name", [name for name in INPUTS if name != "window mimn"])  # torch has no bincount there
def test_a_module_moved_to_meta_tells_shapes(name: str) -> None:
    module = drawn(name)
    shapes = [each.shape for each in outputs(module, INPUTS[name])]
    found = outputs(module.to("meta"), tuple(each.to("meta") for each in INPUTS[name]))
    assert [each.shape for each in found] == shapes
    assert all(each.is_meta for each in found)


@pytest.mark.parametrize("name", INPUTS)
def test_functional_call_takes_other_tensors_and_leaves_the_module(name: str) -> None:
    module, inputs = drawn(name), INPUTS[name]
    before = outputs(module, inputs)
    tensors = {key: each + 0.5 if each.is_floating_point() else each for key, each in module.state_dict().items()}
    other = copy.deepcopy(module)
    other.load_state_dict(tensors)
    found = outputs(lambda *args: torch.func.functional_call(module, tensors, args), inputs)
    assert_same(found, outputs(other, inputs))
    assert_same(outputs(module, inputs), before)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 0.03), (torch.half, 0.006), (torch.double, 1e-5)])
def test_a_cast_module_computes_in_its_type(name: str, dtype: torch.dtype, error: float) -> None:
    torch.manual_seed(3)
    module, inputs = drawn(name), INPUTS[name]
    wanted = outputs(module, inputs)
    found = outputs(module.to(dtype), tuple(each.to(dtype) if each.is_floating_point() else each for each in inputs))
    for ours, exact in zip(found, wanted, strict=True):
        assert ours.dtype == dtype
        off = (ours.float() - exact).norm() / exact.norm().clamp_min(1e-9)
        assert off < (
            0.5 if name in ("layer", "layer with heads", "network", "factored", "without marginals") else error
        )


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("sparse_grad", [False, True])
def test_keys_and_values_can_be_parametrized(compiled: bool, sparse_grad: bool) -> None:
    layer = MemoryLayer(5, 7, sparse_grad=sparse_grad, **SMALL)
    x = torch.randn(9, 5)
    layer(x).square().sum().backward()
    wanted = {name: each.grad.to_dense() for name, each in layer.named_parameters()}
    layer.zero_grad()
    before = layer(x)
    for name in ("keys", "values"):
        parametrize.register_parametrization(layer, name, Double())
    call = torch.compile(layer, backend="aot_eager", fullgraph=True) if compiled else layer
    torch.testing.assert_close(call(x), before)
    call(x).square().sum().backward()
    assert layer.values_parameters() == []
    for name in ("keys", "values"):
        original = layer.get_parameter(f"parametrizations.{name}.original")
        torch.testing.assert_close(original.grad, 2 * wanted[name])
    assert {"parametrizations.keys.original", "parametrizations.values.original"} <= layer.state_dict().keys()
    again = copy.deepcopy(layer)
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again(x), before)
    tensors = {name: 2 * each for name, each in layer.named_parameters()}
    assert not torch.allclose(torch.func.functional_call(layer, tensors, (x,)), before)
    for name in ("keys", "values"):
        parametrize.remove_parametrizations(layer, name)
    assert type(layer) is MemoryLayer
    torch.testing.assert_close(layer(x), before)
    assert layer.values_parameters() == ([layer.values] if sparse_grad else [])


def test_one_parametrization_leaves_the_other_name_a_method() -> None:
    layer = MemoryLayer(5, 7, **SMALL)
    parametrize.register_parametrization(layer, "values", Tanh())
    parametrize.register_parametrization(layer, "inactive", nn.Identity())
    assert list(layer.parametrizations.keys()) == ["values", "inactive"]
    assert isinstance(layer.parametrizations.values, parametrize.ParametrizationList)
    assert parametrize.is_parametrized(layer, "values")
    assert not parametrize.is_parametrized(layer, "keys")
    with pytest.raises(KeyError, match="attribute 'pop' already exists"):
        layer.parametrizations["pop"] = nn.Identity()


def test_a_parametrized_layer_is_emptied_and_reset_through_the_inverse() -> None:
    layer = MemoryLayer(5, 7, **SMALL)
    for name in ("keys", "values"):
        parametrize.register_parametrization(layer, name, Double())
    torch.manual_seed(5)
    layer.reset_parameters()
    torch.manual_seed(5)
    fresh = MemoryLayer(5, 7, **SMALL)
    torch.testing.assert_close(layer.values, fresh.values.detach())
    torch.testing.assert_close(layer.keys, fresh.keys.detach())
    parametrize.register_parametrization(layer, "values", Tanh())
    with pytest.raises(RuntimeError, match="Tanh does not implement right_inverse"):
        layer.reset_values()


def test_a_factored_memory_can_be_parametrized() -> None:
    network = FactoredMemoryNetwork([30, 6], 11, sub_keys=8)
    nn.init.normal_(network.block.values)
    before = network(*INPUTS["factored"])
    for name in ("keys", "values"):
        parametrize.register_parametrization(network.block, name, Double())
    torch.testing.assert_close(network(*INPUTS["factored"]), before)
    network.losses(*INPUTS["factored"]).answer.backward()
    assert network.block.parametrizations["values"].original.grad.abs().sum() > 0


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_weight_norm(new: bool) -> None:
    layer = MemoryLayer(5, 7, **SMALL)
    x = torch.randn(9, 5)
    before = layer(x)
    norm = nn.utils.parametrizations.weight_norm if new else nn.utils.weight_norm
    norm(layer, "values", dim=0)
    torch.testing.assert_close(layer(x), before)
    layer(x).square().sum().backward()
    assert all(each.grad is not None for each in layer.parameters())


@pytest.mark.parametrize("name", ["keys", "values"])
def test_a_pruned_layer_is_right_where_it_is_called_and_refuses_elsewhere(name: str) -> None:
    layer = MemoryLayer(5, 7, **SMALL)
    prune.l1_unstructured(layer, name, amount=0.3)
    x = torch.randn(9, 5)
    for _ in range(2):
        layer(x).square().sum().backward()
    stale = rf"MemoryLayer: {name} must not come from a hook .*; use torch.nn.utils.parametrize"
    calls: list[Callable[[], object]] = [
        lambda: layer.read(x), lambda: layer.look_up(layer.queries(x)), layer.reset_parameters
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(RuntimeError, match=stale):
            call()
    for change in (lambda: grow(layer), lambda: reseed(layer, MemoryUsage(6))):
        with pytest.raises(RuntimeError, match=f"{name} must be a parameter, got one that is computed"):
            change()
    prune.remove(layer, name)
    assert layer.read(x).output.shape == (9, 7)


def _pruned(module: nn.Module, name: str = "weight") -> nn.Module:
    pruned: nn.Module = prune.l1_unstructured(module, name, amount=0.3)
    return pruned


def test_tensors_that_are_read_without_a_call_refuse_hooks() -> None:
    embedding = MODULES["embedding"]()
    _pruned(embedding.tables[0])
    attention, search = DIN(4), SIMSoft(4)
    _pruned(attention.score[0])
    _pruned(search.position_map)
    network = LargeMemoryNetwork(4, 3, sub_keys=6, top_k=2)
    _pruned(network.block, "values")
    factored = FactoredMemoryNetwork([30, 6], 11, sub_keys=8)
    _pruned(factored.block, "values")
    mask = torch.ones(9, 2, dtype=torch.bool)
    window = INPUTS["window din"]
    calls: list[Callable[[], object]] = [
        lambda: embedding(*INPUTS["embedding"]),
        lambda: attention(*window),
        lambda: search(*window),
        lambda: network.losses(torch.randn(9, 2, 4), mask, torch.randn(9, 3)),
        lambda: factored(*INPUTS["factored"]),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="must not come from a hook"):
            call()
    assert network(*INPUTS["network"]).output.shape == (9, 7)


@pytest.mark.parametrize(
    ("kind", "arguments"), [(MemoryLayer, (5, 7)), (LargeMemoryNetwork, (4, 3)), (FactoredMemoryNetwork, ([30, 6], 11))]
)
def test_a_module_can_skip_its_initialisation(kind: type[nn.Module], arguments: tuple[Any, ...]) -> None:
    module = skip_init(kind, *arguments, sub_keys=6, top_k=2)
    assert all(each.device.type == "cpu" for each in module.state_dict().values())
    torch.manual_seed(5)
    module.reset_parameters()
    torch.manual_seed(5)
    fresh = kind(*arguments, sub_keys=6, top_k=2, device="cpu")
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor), name
