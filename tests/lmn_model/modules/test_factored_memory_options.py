"""The options of a factored query that ablations turn, each against an oracle of a few lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rows_factory import write_rows
from torch import Tensor

from benchmarks.study.result_files import same_settings
from lmn_kernels import product_key_topk
from lmn_kernels.activation import ACTIVATIONS, activate
from lmn_kernels.product_key_topk.metric import METRICS
from lmn_model.ctr.model import CTRModel, MemorySettings, ModelSettings
from lmn_model.data import Batch, CategoricalFeature, FeatureSpec
from lmn_model.modules.factored_memory import FactoredMemoryNetwork
from lmn_model.modules.growth import grow
from lmn_model.modules.large_memory_network import LargeMemoryNetwork
from lmn_model.modules.usage import MemoryUsage
from lmn_model.training.run_evaluation import evaluate_run
from lmn_model.training.run_state import load_model, save_model
from lmn_model.training.settings import Settings, SettingsError
from lmn_model.training.train import train

ITEM = (CategoricalFeature("item", 30), CategoricalFeature("category", 6))
USER = CategoricalFeature("user", 11)
FEATURES = FeatureSpec(user=(USER,), item=ITEM, context=(), numeric=())
D = 16


def make(**options: Any) -> FactoredMemoryNetwork:
    return FactoredMemoryNetwork(
        [each.size for each in ITEM], USER.size, **{"code_dim": D, "sub_keys": 12, "marginals": False, **options}
    )


def draw(rows: int) -> tuple[Tensor, Tensor]:
    item = torch.stack([torch.randint(1, feature.size, (rows,)) for feature in ITEM], dim=-1)
    return item, torch.randint(1, USER.size, (rows,))


def codes_of(network: FactoredMemoryNetwork, item: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of items and users, each ``[R, 2, D]``."""
    items = torch.stack((network.item_codes[item[:, 0]], network.item_codes[ITEM[0].size + item[:, 1]]), dim=1)
    return items, network.user_codes[user][:, None].expand(-1, 2, -1)


def score(query: Tensor, keys: Tensor, metric: str) -> Tensor:
    """Scores of keys ``[n, D]`` for one query ``[D]``."""
    if metric == "l2":
        return -(keys - query).square().sum(-1)
    dots = (keys * query).sum(-1)
    return dots if metric == "dot" else dots / (query.norm() * keys.norm(dim=-1))


@pytest.mark.parametrize("address", ["item", "user"])
@pytest.mark.parametrize("top_k", [1, 2])
def test_an_address_of_one_side_alone(address: str, top_k: int) -> None:
    network = make(address=address, top_k=top_k)
    item, user = draw(20)
    slots, weights = network.cells(item, user)
    codes = codes_of(network, item, user)[0 if address == "item" else 1]
    for row in range(20):
        for feature in range(2):
            halves = [score(codes[row, feature], network.block.keys[0, axis], "cosine") for axis in (0, 1)]
            best = (halves[0][:, None] + halves[1][None, :]).flatten().topk(top_k)
            assert slots[row, feature].tolist() == best.indices.tolist()
            torch.testing.assert_close(weights[row, feature], best.values.softmax(0))


@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("metric", METRICS)
def test_flat_keys_are_searched_one_by_one(top_k: int, metric: str) -> None:
    network = make(keys="flat", top_k=top_k, code_metric=metric)
    assert network.flat_keys.shape == (144, D)
    item, user = draw(30)
    slots, weights = network.cells(item, user)
    items, users = codes_of(network, item, user)
    for row in range(30):
        for feature in range(2):
            best = score(items[row, feature] * users[row, feature], network.flat_keys, metric).topk(top_k)
            assert slots[row, feature].tolist() == best.indices.tolist()
            torch.testing.assert_close(weights[row, feature], best.values.softmax(0))
    assert slots.unique().numel() > 20


def test_flat_keys_are_read_written_and_saved(tmp_path: Path) -> None:
    network = make(keys="flat", sub_keys=32, marginals=True)
    item, user = draw(1)
    slots, _ = network.cells(*network._with_any(item, user))
    network.losses(item, user).answer.backward()
    assert set(network.block.values.grad.coalesce().indices()[0].tolist()) == set(slots.flatten().tolist())
    assert not network(item, user).any()
    network.block.values.data.sub_(network.block.values.grad.to_dense() * 100)
    assert (network(item, user).view(2, 3, 4)[0, :2, 2] > 0).all()
    assert [name for name, each in network.named_parameters() if each.requires_grad] == ["block.values"]

    settings = ModelSettings(hidden=(4,), memory=MemorySettings(sub_keys=8, code_dim=D, keys="flat"))
    one, other = CTRModel(FEATURES, settings), CTRModel(FEATURES, settings)
    item, user = draw(20)
    assert not torch.equal(one.memory.cells(item, user).slots, other.memory.cells(item, user).slots)
    save_model(tmp_path / "a.safetensors", one, {})
    load_model(tmp_path / "a.safetensors", other)
    assert torch.equal(one.memory.cells(item, user).slots, other.memory.cells(item, user).slots)
    assert "memory.flat_keys" in one.state_dict()
    assert "flat_keys" not in make().state_dict()


def test_codes_do_not_depend_on_the_keys() -> None:
    networks = []
    for keys in ("product", "flat"):
        torch.manual_seed(1)
        networks.append(make(keys=keys))
    assert torch.equal(networks[0].item_codes, networks[1].item_codes)
    assert torch.equal(networks[0].user_codes, networks[1].user_codes)


@pytest.mark.parametrize("keys", ["product", "flat"])
def test_what_is_written_side_by_side_answers_as_written(keys: str) -> None:
    network = make(target="pair", keys=keys, sub_keys=64, read_out="both")
    item, user = draw(1)
    for _ in range(12):
        network.block.values.grad = None
        network.losses(item, user).answer.backward()
        network.block.values.data.sub_(network.block.values.grad.to_dense() * 16)
    items, users = codes_of(network, item, user)
    written = torch.cat((items[..., : D // 2], users[..., : D // 2]), dim=-1)
    told = network(item, user).view(1, 2, 4 + D)
    torch.testing.assert_close(told[..., 4:], written, atol=1e-2, rtol=0)
    torch.testing.assert_close(told[..., 2], torch.full((1, 2), 3.0))  # the cosine over the whole vector
    network.read_out = "answer"
    torch.testing.assert_close(network(item, user), told[..., 4:].flatten(1))


@pytest.mark.parametrize("top_k", [1, 4])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_cells_are_those_of_the_kernels_for_every_metric_and_activation(
    top_k: int, metric: str, activation: str
) -> None:
    network = make(top_k=top_k, code_metric=metric, activation=activation)
    network.block.keys.data[0, :, 3] *= 4  # a long key, so that metrics differ
    item, user = draw(25)
    slots, weights = network.cells(item, user)
    queries = torch.stack(codes_of(network, item, user), dim=2).view(50, 1, 2, D)
    found = product_key_topk(queries, network.block.keys, top_k, metric=metric)
    assert torch.equal(slots.view(50, 1, top_k), found.slots)
    assert torch.equal(weights.view(50, 1, top_k), activate(found.scores, activation))
    if top_k == 1 and activation == "softmax":
        assert (weights == 1).all()


def test_metrics_choose_differently() -> None:
    item, user = draw(40)
    found = []
    for metric in METRICS:
        torch.manual_seed(2)
        network = make(code_metric=metric)
        network.block.keys.data[0, :, 3] *= 40
        found.append(network.cells(item, user).slots)
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[1], found[2])


@pytest.mark.parametrize(("loss", "oracle"), [
    ("smooth_l1", lambda error: torch.where(error.abs() < 1, error.square() / 2, error.abs() - 0.5)),
    ("mse", torch.square),
])  # fmt: skip
def test_the_memory_loss_of_both_queries(loss: str, oracle: Callable[[Tensor], Tensor]) -> None:
    network = make(loss=loss)
    torch.nn.init.normal_(network.block.values)
    item, user = draw(9)
    items, users = codes_of(network, item, user)
    answer = network.block.values[network.cells(item, user).slots[..., 0]]
    torch.testing.assert_close(network.losses(item, user).answer, oracle(answer - items * users).mean())
    assert network.losses(item[:0], user[:0]).answer == 0

    joint = LargeMemoryNetwork(6, 4, loss=loss, sub_keys=8, top_k=3, key_dim=4, value_std=2.0)
    history, person = torch.randn(3, 2, 6), torch.randn(3, 4)
    pair = torch.cat((history, person[:, None].expand(-1, 2, -1)), dim=-1).flatten(0, 1)
    expected = oracle(joint.block(pair) - pair).mean()
    torch.testing.assert_close(joint.losses(history, torch.ones(3, 2, dtype=torch.bool), person).answer, expected)
    for query in ("factored", "joint"):
        memory = MemorySettings(query=query, sub_keys=8, loss=loss)  # type: ignore[arg-type]
        assert CTRModel(FEATURES, ModelSettings(hidden=(4,), memory=memory)).memory.loss == loss


def test_settings_reach_the_network() -> None:
    options = {
        "address": "user", "target": "pair", "read_out": "answer", "code_metric": "l2", "activation": "relu",
        "loss": "mse", "marginals": False, "code_dim": 6,
    }  # fmt: skip
    network = CTRModel(FEATURES, ModelSettings(hidden=(4,), memory=MemorySettings(sub_keys=8, **options))).memory
    assert isinstance(network, FactoredMemoryNetwork)
    found = {"address": network.address, "target": network.target, "read_out": network.read_out,
             "code_metric": network.metric, "activation": network.activation, "loss": network.loss,
             "marginals": network.marginals, "code_dim": network.item_codes.shape[1]}  # fmt: skip
    assert found == options
    assert network.signals == 2 * 6
    assert network.flat_keys is None
    joint = MemorySettings(query="joint", sub_keys=8, activation="sigmoid", metric="l2")
    memory = CTRModel(FEATURES, ModelSettings(hidden=(4,), memory=joint)).memory.block
    assert (memory.metric, memory.activation) == ("l2", "sigmoid")


def make_batch() -> Batch:
    item, user = draw(8)
    return Batch(
        label=torch.ones(8), user=user[:, None], item=item, context=torch.empty(8, 0, dtype=torch.int64),
        numeric=torch.empty(8, 0), history=item[:, None], history_mask=torch.ones(8, 1, dtype=torch.bool),
        group=user,
    )  # fmt: skip


@pytest.mark.parametrize("query", ["factored", "joint"])
def test_a_gate_is_open_at_first(query: str) -> None:
    batch, scores = make_batch(), []
    for gate in (False, True):
        torch.manual_seed(3)
        memory = MemorySettings(query=query, sub_keys=8, gate=gate)  # type: ignore[arg-type]
        model = CTRModel(FEATURES, ModelSettings(hidden=(64,), memory=memory)).eval()
        torch.nn.init.normal_(model.memory.block.values, generator=torch.Generator().manual_seed(0))
        scores.append(model(batch).logits)
        assert (model.gate is not None) == gate
    torch.testing.assert_close(scores[1], scores[0])


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("query", ["factored", "joint"])
def test_what_joins_the_logit_is_added_to_a_tower_that_is_not_told(query: str, gate: bool) -> None:
    with pytest.raises(
        ValueError, match="joins must be 'tower' for interest = 'din', which has no memory, got 'logit'"
    ):
        ModelSettings(interest="din", memory=MemorySettings(joins="logit"))
    memory = MemorySettings(query=query, sub_keys=8, joins="logit", gate=gate)  # type: ignore[arg-type]
    model = CTRModel(FEATURES, ModelSettings(interest="lmn_only", hidden=(4,), memory=memory)).eval()
    batch = make_batch()
    told: list[Tensor] = []
    towers: list[Tensor] = []
    assert model.memory_logit is not None
    model.memory_logit.register_forward_hook(lambda _, inputs, output: told.append(inputs[0]))
    model.tower.register_forward_hook(lambda _, inputs, output: towers.append(output))
    torch.nn.init.normal_(model.memory.block.values)
    assert torch.equal(model(batch).logits, towers[0].squeeze(-1))  # adds nothing at first
    for each in model.memory_logit.parameters():
        torch.nn.init.normal_(each)
    logits = model(batch).logits
    first, _, last = model.memory_logit
    added = torch.relu(told[1] @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(logits, (towers[1] + added).squeeze(-1))
    assert not torch.equal(logits, towers[1].squeeze(-1))
    plain = torch.cat((model.user_embedding(batch.user), model.item_embedding(batch.item)), dim=-1)
    if not gate:
        torch.testing.assert_close(towers[1], model.tower(plain))
    logits.sum().backward()
    assert all(bool(each.grad.abs().sum() > 0) for each in model.memory_logit.parameters())
    assert model.parameter_counts()["total"] == sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("query", ["factored", "joint"])
def test_a_gate_multiplies_everything_but_the_memorys_own_part(query: str) -> None:
    memory = MemorySettings(query=query, sub_keys=8, gate=True)  # type: ignore[arg-type]
    model = CTRModel(FEATURES, ModelSettings(interest="din", hidden=(4,)))
    with pytest.raises(ValueError, match="gate must be False for interest = 'din', which has no memory, got True"):
        replace(model.settings, memory=memory)
    model = CTRModel(FEATURES, ModelSettings(interest="lmn_only", hidden=(4,), memory=memory)).eval()
    assert model.gate is not None
    torch.nn.init.normal_(model.memory.block.values)
    torch.nn.init.normal_(model.gate.map.weight)
    torch.nn.init.normal_(model.gate.map.bias)
    batch = make_batch()
    item = batch.item
    seen: list[Tensor] = []
    model.tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = model(batch).logits
    plain = torch.cat((model.user_embedding(batch.user), model.item_embedding(item)), dim=-1)
    told = seen[0][:, plain.shape[1] :]
    gate = 2 / (1 + torch.exp(-(told @ model.gate.map.weight.T + model.gate.map.bias)))
    torch.testing.assert_close(seen[0][:, : plain.shape[1]], plain * gate)
    assert told.shape[1] == model.gate.map.weight.shape[1]
    logits.sum().backward()
    assert all(bool(each.grad.abs().sum() > 0) for each in model.gate.parameters())
    assert model.parameter_counts()["total"] == sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": "flat", "sub_keys": 257}, "sub_keys must be at most 256 for keys = 'flat', got 257"),
        ({"keys": "flat", "address": "item", "sub_keys": 256}, "address must be 'pair' for keys = 'flat', got 'item'"),
        ({"target": "pair", "code_dim": 7}, "code_dim must be even for target = 'pair', got 7"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)
    with pytest.raises(SettingsError, match=message):
        Settings().override(options)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("keys", "product, flat"), ("code_metric", "dot, cosine, l2"), ("activation", "softmax, sigmoid, relu"),
        ("loss", "smooth_l1, mse"), ("address", "pair, item, user"), ("target", "bound, pair"),
        ("read_out", "familiarity, answer, both"),
    ],
)  # fmt: skip
def test_unknown_options(name: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"FactoredMemoryNetwork: {name} must be one of {known}, got 'none'"):
        make(**{name: "none"})
    with pytest.raises(SettingsError, match=f"{name} must be one of .*, got 'none'"):
        Settings().override({name: "none"})
    with pytest.raises(ValueError, match="LargeMemoryNetwork: loss must be one of smooth_l1, mse, got 'none'"):
        LargeMemoryNetwork(6, 4, loss="none")


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("joint", "keys", "flat"), ("joint", "code_metric", "l2"), ("joint", "target", "pair"),
        ("joint", "read_out", "both"), ("joint", "address", "user"), ("joint", "marginals", False),
        ("joint", "code_dim", 32),
        ("factored", "metric", "cosine"), ("factored", "key_dim", 8), ("factored", "positions", 0),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_refused(query: str, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} has no effect on a {query} query, got {value!r}"):
        MemorySettings(query=query, **{name: value})  # type: ignore[arg-type]


def test_a_flat_memory_trains_and_cannot_be_reseeded_or_grown(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows")
    settings = Settings().override({
        "dataset": "rows", "path": str(rows), "window": 4, "embedding_dim": 4, "hidden": (8,), "sub_keys": 16,
        "code_dim": 8, "batch_size": 16, "threads": 1, "device": "cpu", "keys": "flat", "gate": True, "loss": "mse",
        "target": "pair", "read_out": "both", "code_metric": "l2",
    })  # fmt: skip
    results = train(settings, tmp_path / "run")["results"]
    assert evaluate_run(tmp_path / "run")["auc"] == results["test"]["auc"]
    assert results["evaluations"][-1]["memory"]["reads"] > 0
    with pytest.raises(SettingsError, match="reseed_every must be left out for keys = 'flat', got 5"):
        settings.override({"reseed_every": 5})
    network = make(keys="flat")
    network.block.usage = MemoryUsage(12, by_sub_key=True)
    with pytest.raises(ValueError, match="reseed_every must not be set for a memory with keys = 'flat'"):
        network.losses(*draw(3))
    network.block.usage = None
    grow(network.block)
    with pytest.raises(ValueError, match="a memory with keys 'flat' cannot grow, got 144 keys for 576 slots"):
        network(*draw(3))


def test_a_result_from_before_the_options_is_one_with_their_defaults() -> None:
    table = Settings().to_dict()
    for name in ("address", "target", "read_out", "keys", "code_metric", "loss", "gate"):
        del table["model"]["memory"][name]
    assert table["model"]["memory"]["metric"] == "dot"
    assert same_settings({"settings": table}, Settings()) == []
    for changed in ({"keys": "flat", "sub_keys": 256}, {"code_metric": "dot"}, {"loss": "mse"}, {"activation": "relu"}):
        differ = same_settings({"settings": table}, Settings().override(changed))
        assert differ == sorted(f"model.memory.{name}" for name in changed)
