"""``reset_parameters``: every module of the package starts again from garbage as its constructor starts it."""

from __future__ import annotations

import importlib
import pkgutil
from itertools import chain

import pytest
import torch
from modules_factory import ITEM, MODULES, pair_map
from torch import nn

import lmn_model
from lmn_model import FactoredMemoryNetwork, MemoryLayer
from lmn_model.ctr import CTRModel, MemorySettings, ModelSettings
from lmn_model.ctr.window import WindowMatchFeatures
from lmn_model.data import CategoricalFeature, FeatureSpec
from lmn_model.modules.growth import grow
from lmn_model.modules.usage import MemoryUsage


def tensors(module: nn.Module, recurse: bool = True) -> dict[str, torch.Tensor]:
    return dict(chain(module.named_parameters(recurse=recurse), module.named_buffers(recurse=recurse)))


@torch.no_grad()
def fill_with_garbage(module: nn.Module) -> None:
    for tensor in tensors(module).values():
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)
        else:
            tensor.fill_(torch.iinfo(torch.int64).max if tensor.dtype == torch.int64 else 1)


def assert_equal(module: nn.Module, wanted: nn.Module) -> None:
    found, wanted_tensors = tensors(module), tensors(wanted)
    assert found.keys() == wanted_tensors.keys()
    for name, tensor in wanted_tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def new(name: str) -> nn.Module:
    torch.manual_seed(5)
    return MODULES[name]()


@pytest.mark.parametrize("name", [name for name in MODULES if name != "table"])
@pytest.mark.parametrize("meta", [False, True], ids=["garbage", "meta"])
def test_a_reset_module_is_a_new_one_bit_for_bit(name: str, meta: bool) -> None:
    with torch.device("meta" if meta else "cpu"):
        module = MODULES[name]()
    if meta:
        module.to_empty(device="cpu")
    fill_with_garbage(module)
    torch.manual_seed(5)
    if not isinstance(module, WindowMatchFeatures):
        module.reset_parameters()
    assert_equal(module, new(name))


def materialise(model: nn.Module) -> None:
    """As FSDP does: each module with tensors of its own is given memory and reset, and so are they all afterwards."""
    for module in model.modules():
        if tensors(module, recurse=False):
            module.to_empty(device="cpu", recurse=False)
            for tensor in tensors(module, recurse=False).values():
                tensor.detach().fill_(torch.nan if tensor.is_floating_point() else 1)
            module.reset_parameters()


@pytest.mark.parametrize("name", MODULES)
def test_module_by_module_every_tensor_is_set(name: str) -> None:
    with torch.device("meta"):
        module = MODULES[name]()
    materialise(module)
    wanted = new(name)
    for key, tensor in tensors(module).items():
        other = tensors(wanted)[key]
        if not tensor.is_floating_point() or other.count_nonzero() == 0:
            assert torch.equal(tensor, other), key
        assert tensor.isfinite().all(), key


def test_module_by_module_layers_start_as_their_owners_want() -> None:
    features = FeatureSpec((CategoricalFeature("user", 2000),), ITEM, (), ())
    with torch.device("meta"):
        model = CTRModel(
            features, ModelSettings(embedding_dim=8, memory=MemorySettings(kind="joint", sub_keys=1024, gate=True))
        )
    materialise(model)
    table = model.user_embedding.tables[0].weight.detach()
    assert table[0].count_nonzero() == 0
    assert table[1:].std() == pytest.approx(0.05, rel=0.05)
    query = model.memory.block.query  # type: ignore[union-attr]
    of_item, of_user = query.weight.detach().split([16, 8], dim=1)
    assert of_item.std() == pytest.approx(32**-0.5, rel=0.1)
    assert of_user.std() == pytest.approx(16**-0.5, rel=0.1)
    for zeros in (query.bias, model.gate.map.weight, model.gate.map.bias):  # type: ignore[union-attr]
        assert zeros.count_nonzero() == 0


def test_a_reset_layer_reaches_all_its_sub_keys() -> None:
    for _ in range(20):
        with torch.device("meta"):
            layer = MemoryLayer(5, 7, sub_keys=6, top_k=6)
        layer.to_empty(device="cpu")
        layer.inactive.fill_(True)
        layer.reset_parameters()
        slots = layer.read(torch.randn(200, 5)).slots
        assert slots.unique().numel() > 18


def test_a_grown_layer_is_reset_at_its_size_and_counts_anew() -> None:
    layer = MemoryLayer(5, 7, sub_keys=6, top_k=3)
    layer.usage = MemoryUsage(6)
    layer(torch.randn(9, 5))
    grow(layer)
    layer.usage.advance()
    layer.reset_parameters()
    assert layer.inactive.shape == (1, 2, 12)
    assert not layer.inactive.any()
    assert int(layer.usage.slot_reads.sum()) == int(layer.usage.sub_key_reads.sum()) == layer.usage.step == 0
    assert layer.usage.queries is None


def test_a_reset_memory_of_codes_forgets_its_lists() -> None:
    network = FactoredMemoryNetwork([30, 6], 11, sub_keys=8)
    ids = torch.randint(6, (20, 2)), torch.randint(11, (20,))
    network.pair_slots(*ids)
    torch.manual_seed(5)
    network.reset_parameters()
    torch.manual_seed(5)
    other = FactoredMemoryNetwork([30, 6], 11, sub_keys=8)
    assert torch.equal(network.pair_slots(*ids).slots, other.pair_slots(*ids).slots)


def test_every_module_of_the_package_is_tested() -> None:
    names = [each.name for each in pkgutil.walk_packages(lmn_model.__path__, "lmn_model.")]
    kinds = {
        kind
        for name in names
        if not name.endswith("__main__") and "study" not in name
        for kind in vars(importlib.import_module(name)).values()
        if isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__.startswith("lmn_model")
    }
    tested = {type(part) for make in (*MODULES.values(), pair_map) for part in make().modules()}
    assert {kind.__name__ for kind in kinds - tested} == {"WindowModel", "ParametrizationDict", "WideSums"}
