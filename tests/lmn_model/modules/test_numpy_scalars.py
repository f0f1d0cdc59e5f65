"""Numbers of NumPy wherever a size, a count or a rate is given, and plain ones in what is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lmn_kernels import huge_zeros, memory_lookup, product_key_topk
from lmn_kernels.checks import check_flag, check_int, check_number
from lmn_model import FactoredMemoryNetwork, LargeMemoryNetwork, MemoryLayer
from lmn_model.ctr import MemorySettings, ModelSettings
from lmn_model.ctr.feature_embedding import FeatureEmbedding
from lmn_model.ctr.window import DIN, MIMN, SIMHard, SIMSoft, WindowMatchFeatures
from lmn_model.data import CategoricalFeature
from lmn_model.modules.reseeding import balance_loss
from lmn_model.modules.usage import MemoryUsage
from lmn_model.training.settings import Settings

INTS = [np.int64, np.int32, np.uint8, np.array, torch.tensor]
QUERIES, KEYS, VALUES = torch.randn(3, 1, 2, 4), torch.randn(1, 2, 6, 4), torch.randn(36, 5)


def features(size: Any) -> tuple[CategoricalFeature, ...]:
    return (CategoricalFeature("item", size),)


MAKERS: dict[str, Callable[[Callable[[int], Any]], object]] = {
    "product_key_topk": lambda n: product_key_topk(QUERIES, KEYS, n(3)),
    "memory_lookup": lambda n: memory_lookup(QUERIES, KEYS, VALUES, n(3)),
    "huge_zeros": lambda n: huge_zeros(n(3), n(2)),
    "MemoryLayer": lambda n: MemoryLayer(n(5), n(6), sub_keys=n(6), top_k=n(3), key_dim=n(4), heads=n(2)),
    "MemoryLayer, value_std": lambda n: MemoryLayer(5, 6, sub_keys=6, top_k=3, value_std=n(1)),
    "LargeMemoryNetwork": lambda n: LargeMemoryNetwork(n(4), n(3), positions=n(2), sub_keys=n(6), top_k=n(3)),
    "FactoredMemoryNetwork": lambda n: FactoredMemoryNetwork(
        [n(9), n(4)], n(5), code_dim=n(8), sub_keys=n(6), top_k=n(2), unseen=n(1)
    ),
    "MemoryUsage": lambda n: MemoryUsage(n(6), n(2)),
    "FeatureEmbedding": lambda n: FeatureEmbedding(features(n(5)), n(4), n(1)),
    "DIN": lambda n: DIN(n(4), n(8)),
    "DIN, layers": lambda n: DIN(n(4), (n(8), n(4))),
    "SIMHard": lambda n: SIMHard(n(4), n(8)),
    "SIMSoft": lambda n: SIMSoft(n(4), n(8), top_k=n(2), recent=n(3)),
    "MIMN": lambda n: MIMN(n(4), n(2)),
    "WindowMatchFeatures": lambda n: WindowMatchFeatures(n(1)),
    "MemorySettings": lambda n: MemorySettings(sub_keys=n(8), top_k=n(2), code_dim=n(16)),
    "ModelSettings": lambda n: ModelSettings(embedding_dim=n(4), hidden=(n(8), n(4))),
    "Settings": lambda n: Settings().override({"epochs": n(3), "hidden": (n(8),), "sub_keys": n(64)}),
}


def plain(made: object) -> Any:
    """What was made, as something to compare: results, tensors with what the modules hold besides, or settings."""
    if isinstance(made, nn.Module):
        own = [
            {name: value for name, value in vars(module).items() if isinstance(value, (int, float, tuple, str))}
            for module in made.modules()
        ]
        return {name: tuple(each.shape) for name, each in made.state_dict().items()}, repr(made), own
    if isinstance(made, MemoryUsage):
        return made.sub_keys, made.heads, made.slot_reads.shape
    if isinstance(made, tuple):
        return [each.tolist() for each in made]
    return made.tolist() if isinstance(made, torch.Tensor) else repr(made)


def assert_plain(value: object) -> None:
    if isinstance(value, nn.Module):
        for module in value.modules():
            assert_plain(list(vars(module).values()))
    elif isinstance(value, (list, tuple)):
        for each in value:
            assert_plain(each)
    else:
        assert not isinstance(value, (np.generic, np.ndarray))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("kind", INTS, ids=lambda kind: kind.__name__)
def test_integers_of_numpy_are_as_those_of_python(name: str, kind: Callable[[int], Any]) -> None:
    if kind is torch.tensor and name in ("MemorySettings", "ModelSettings", "Settings"):
        pytest.skip("settings are written to files")
    torch.manual_seed(0)
    wanted = MAKERS[name](int)
    torch.manual_seed(0)
    made = MAKERS[name](kind)
    assert plain(made) == plain(wanted)
    assert_plain(made)


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in ("MemoryLayer, value_std",)])
@pytest.mark.parametrize("kind", [float, np.float32, bool, np.bool_, str], ids=lambda kind: kind.__name__)
def test_what_is_no_integer_is_refused_at_construction(name: str, kind: Callable[[int], Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="must be"):
        MAKERS[name](kind)


@pytest.mark.parametrize(
    "kind", [np.float64, np.float32, np.float16, np.array, torch.tensor], ids=lambda each: each.__name__
)
def test_real_numbers_of_numpy(kind: Callable[[float], Any]) -> None:
    half = kind(0.5)
    layer = MemoryLayer(5, 6, sub_keys=6, top_k=3, value_std=half)
    assert type(layer.value_std) is float
    assert FeatureEmbedding(features(5), 4, half).tables[0].std == 0.5
    if kind not in (np.array, torch.tensor):
        settings = Settings().override({"dropout": half, "learning_rate": half, "loss_weight": half})
        assert settings == Settings().override({"dropout": 0.5, "learning_rate": 0.5, "loss_weight": 0.5})
        assert type(ModelSettings(dropout=half).dropout) is float


def test_flags_of_numpy_are_plain() -> None:
    layer = MemoryLayer(5, 6, sub_keys=6, top_k=3, sparse_grad=np.bool_(False), concat_heads=np.False_)  # type: ignore[arg-type]
    layer(torch.randn(2, 5)).sum().backward()
    assert layer.sparse_grad is False
    assert not layer.values.grad.is_sparse  # type: ignore[union-attr]
    assert Settings().override({"marginals": np.False_}).model.memory.marginals is False
    with pytest.raises(TypeError, match="f: x must be a bool, got 1"):
        check_flag("f", "x", 1)


def test_a_balance_loss_and_a_table_of_many_slots_do_not_wrap_around() -> None:
    found = MemoryLayer(5, 6, sub_keys=6, top_k=3).read(torch.randn(9, 5))
    assert torch.equal(balance_loss(found, np.int8(6)), balance_loss(found, 6))  # type: ignore[arg-type]
    assert huge_zeros(np.int8(100), np.int8(100)).shape == (100, 100)  # type: ignore[arg-type]
    assert MemoryUsage(np.int8(100)).slot_reads.shape == (10_000,)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"metric": "l1"}, ValueError, "MemoryLayer: metric must be one of 'dot', 'cosine', 'l2', got 'l1'"),
        ({"activation": "tanh"}, ValueError, "MemoryLayer: activation must be one of"),
        ({"backend": "cuda"}, ValueError, "MemoryLayer: backend must be one of"),
        ({"sparse_grad": 1}, TypeError, "MemoryLayer: sparse_grad must be a bool, got 1"),
        ({"value_dtype": torch.int8}, ValueError, "MemoryLayer: value_dtype must be float32, .* got torch.int8"),
        ({"value_std": -1.0}, ValueError, "MemoryLayer: value_std must be at least 0, got -1.0"),
        ({"value_std": float("nan")}, ValueError, "MemoryLayer: value_std must be at least 0, got nan"),
        ({"top_k": 3.0}, TypeError, "MemoryLayer: top_k must be an int, got float"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        MemoryLayer(5, 6, sub_keys=6, **{"top_k": 3, **arguments})


def test_k_stays_dynamic_in_a_compiled_graph() -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    @torch.compile(backend=backend, fullgraph=True, dynamic=True)
    def read(k: int) -> torch.Tensor:
        return memory_lookup(QUERIES, KEYS, VALUES, k).weights

    for k in (2, 3, 4, 5):
        assert read(k).shape == (3, 1, k)
    assert len(graphs) == 1


@pytest.mark.parametrize("value", [None, "3", 3.0, [3], np.array([3, 4]), np.float64(3), torch.tensor(3.0), 3j])
def test_no_integer(value: Any) -> None:
    with pytest.raises(TypeError, match="f: x must be an int, got"):
        check_int("f", "x", value)


@pytest.mark.parametrize("value", [None, "3", True, np.True_, [3.0], np.array([3.0]), torch.tensor(True), 3j])
def test_no_number(value: Any) -> None:
    with pytest.raises(TypeError, match="f: x must be a number, got"):
        check_number("f", "x", value)
