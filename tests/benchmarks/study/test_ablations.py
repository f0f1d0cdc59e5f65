"""The ablations of a factored memory: each against an oracle of a few lines, and their settings and results."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pairs_factory import FEATURES, ITEM, USER, D, codes_of, draw
from rows_factory import write_rows
from torch import Tensor, nn

from benchmarks.study.ablations import AblatedMemoryNetwork
from benchmarks.study.result_files import same_settings
from benchmarks.study.settings import StudyMemorySettings, StudyModelSettings, StudySettings
from lmn_kernels import product_key_topk
from lmn_kernels.activation import ACTIVATIONS, activate
from lmn_kernels.product_key_topk.metric import METRICS
from lmn_model import FactoredMemoryNetwork
from lmn_model.ctr.model import CTRModel
from lmn_model.modules import MemoryUsage, grow
from lmn_model.modules.pair_ids import with_marginals
from lmn_model.training.reporting.plots import usage_axes
from lmn_model.training.runs.state import load_model, save_model
from lmn_model.training.settings import SettingsError
from lmn_model.training.train_run import train


def make(**options: Any) -> AblatedMemoryNetwork:
    return AblatedMemoryNetwork(
        [each.size for each in ITEM], USER.size, **{"code_dim": D, "sub_keys": 12, "marginals": False, **options}
    )


def score(query: Tensor, keys: Tensor, metric: str) -> Tensor:
    """Scores of keys ``[n, D]`` for one query ``[D]``."""
    if metric == "l2":
        return -(keys - query).square().sum(-1)
    dots = (keys * query).sum(-1)
    return dots if metric == "dot" else dots / (query.norm() * keys.norm(dim=-1))


@pytest.mark.parametrize("address", ["item", "user"])
@pytest.mark.parametrize("top_k", [1, 2])
def test_an_address_of_one_half_alone(address: str, top_k: int) -> None:
    network = make(address=address, top_k=top_k)
    item, user = draw(20)
    slots, weights = network.pair_slots(item, user)
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
    slots, weights = network.pair_slots(item, user)
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
    slots, _ = network.pair_slots(*with_marginals(item, user, USER.size))
    network.losses(item, user).answer.backward()
    assert set(network.block.values.grad.coalesce().indices()[0].tolist()) == set(slots.flatten().tolist())
    assert not network(item, user).any()
    network.block.values.data.sub_(network.block.values.grad.to_dense() * 100)
    assert (network(item, user).view(2, 3, 4)[0, :2, 2] > 0).all()
    assert [name for name, each in network.named_parameters() if each.requires_grad] == ["block.values"]

    settings = StudyModelSettings(hidden=(4,), memory=StudyMemorySettings(sub_keys=8, code_dim=D, keys="flat"))
    one, other = CTRModel(FEATURES, settings), CTRModel(FEATURES, settings)
    item, user = draw(20)
    assert not torch.equal(one.memory.pair_slots(item, user).slots, other.memory.pair_slots(item, user).slots)
    save_model(tmp_path / "a.safetensors", one, {})
    load_model(tmp_path / "a.safetensors", other)
    assert torch.equal(one.memory.pair_slots(item, user).slots, other.memory.pair_slots(item, user).slots)
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
    features = network(item, user).view(1, 2, 4 + D)
    torch.testing.assert_close(features[..., 4:], written, atol=1e-2, rtol=0)
    torch.testing.assert_close(features[..., 2], torch.full((1, 2), 3.0))  # the cosine over the whole vector
    network.read_out = "answer"
    torch.testing.assert_close(network(item, user), features[..., 4:].flatten(1))


@pytest.mark.parametrize("top_k", [1, 4])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slots_are_those_of_the_kernels_for_every_metric_and_activation(
    top_k: int, metric: str, activation: str
) -> None:
    network = make(top_k=top_k, code_metric=metric, activation=activation)
    network.block.keys.data[0, :, 3] *= 4  # a long key, so that metrics differ
    item, user = draw(25)
    slots, weights = network.pair_slots(item, user)
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
        found.append(network.pair_slots(item, user).slots)
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
    answer = network.block.values[network.pair_slots(item, user).slots[..., 0]]
    torch.testing.assert_close(network.losses(item, user).answer, oracle(answer - items * users).mean())
    assert network.losses(item[:0], user[:0]).answer == 0

    for query in ("factored", "joint"):
        memory = StudyMemorySettings(kind=query, sub_keys=8, loss=loss)  # type: ignore[arg-type]
        assert CTRModel(FEATURES, StudyModelSettings(hidden=(4,), memory=memory)).memory.loss == loss


def test_settings_reach_the_network() -> None:
    options = {
        "address": "user", "target": "pair", "read_out": "answer", "code_metric": "l2", "activation": "relu",
        "loss": "mse", "marginals": False, "code_dim": 6,
    }  # fmt: skip
    memory = StudyMemorySettings(sub_keys=8, **options)
    network = CTRModel(FEATURES, StudyModelSettings(hidden=(4,), memory=memory)).memory
    assert isinstance(network, AblatedMemoryNetwork)
    found = {"address": network.halves[0], "target": network.target, "read_out": network.read_out,
             "code_metric": network.block.metric, "activation": network.block.activation, "loss": network.loss,
             "marginals": network.marginals, "code_dim": network.item_codes.shape[1]}  # fmt: skip
    assert found == options
    assert network.signals == 2 * 6
    assert network.flat_keys is None


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
        StudySettings().override(options)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("keys", "'product', 'flat'"), ("code_metric", "'dot', 'cosine', 'l2'"), ("loss", "'smooth_l1', 'mse'"),
        ("address", "'pair', 'item', 'user'"), ("target", "'bound', 'pair'"),
        ("read_out", "'familiarity', 'answer', 'both'"),
    ],
)  # fmt: skip
def test_unknown_options(name: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"AblatedMemoryNetwork: {name} must be one of {known}, got 'none'"):
        make(**{name: "none"})
    with pytest.raises(SettingsError, match=f"{name} must be one of .*, got 'none'"):
        StudySettings().override({name: "none"})


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("joint", "keys", "flat"), ("joint", "code_metric", "l2"), ("joint", "target", "pair"),
        ("joint", "read_out", "both"), ("joint", "address", "user"),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_refused(query: str, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} has no effect for memory = {query!r}, got {value!r}"):
        StudyMemorySettings(kind=query, **{name: value})  # type: ignore[arg-type]


def test_a_flat_memory_trains_and_cannot_be_reseeded_or_grown(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows")
    settings = StudySettings().override({
        "dataset": "rows", "path": str(rows), "window": 4, "embedding_dim": 4, "hidden": (8,), "sub_keys": 16,
        "code_dim": 8, "batch_size": 16, "threads": 1, "device": "cpu", "keys": "flat", "gate": True, "loss": "mse",
        "target": "pair", "read_out": "both", "code_metric": "l2",
    })  # fmt: skip
    results = train(settings, tmp_path / "run")["results"]
    assert train(settings, tmp_path / "run", resume=True)["results"] == results
    assert results["evaluations"][-1]["memory"]["reads"] > 0
    with pytest.raises(SettingsError, match="reseed_every must be none for keys = 'flat', got 5"):
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
    table = StudySettings().to_dict()
    for name in ("address", "target", "read_out", "keys", "code_metric", "loss", "gate"):
        del table["model"]["memory"][name]
    assert table["model"]["memory"]["metric"] == "dot"
    assert same_settings({"settings": table}, StudySettings()) == []
    for changed in ({"keys": "flat", "sub_keys": 256}, {"code_metric": "dot"}, {"loss": "mse"}, {"activation": "relu"}):
        differ = same_settings({"settings": table}, StudySettings().override(changed))
        assert differ == sorted(f"model.memory.{name}" for name in changed)


def test_the_default_ablation_is_the_network_of_the_library() -> None:
    networks, ids = [], draw(20)
    for kind in (FactoredMemoryNetwork, AblatedMemoryNetwork):
        torch.manual_seed(4)
        network = kind([each.size for each in ITEM], USER.size, sub_keys=8, top_k=2)
        network.losses(*ids).answer.backward()
        network.block.values.data.sub_(network.block.values.grad.to_dense())
        networks.append(network)
    assert torch.equal(networks[0](*ids), networks[1](*ids))
    assert networks[0].state_dict().keys() == networks[1].state_dict().keys()


def flat() -> AblatedMemoryNetwork:
    return make(keys="flat", sub_keys=8)


@pytest.mark.parametrize("meta", [False, True], ids=["garbage", "meta"])
def test_a_reset_flat_memory_is_a_new_one_bit_for_bit(meta: bool) -> None:
    with torch.device("meta" if meta else "cpu"):
        network = flat()
    network.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.fill_(torch.nan if tensor.is_floating_point() else 1)
    torch.manual_seed(5)
    network.reset_parameters()
    torch.manual_seed(5)
    for name, tensor in flat().state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_of_a_flat_memory_computes_the_same(copied: Callable[[nn.Module], nn.Module]) -> None:
    network, ids = flat(), draw(9)
    nn.init.normal_(network.block.values)
    assert torch.equal(copied(network)(*ids), network(*ids))
    with torch.device("meta"):
        other = flat()
    other.load_state_dict(network.state_dict(), assign=True)
    assert torch.equal(other(*ids), network(*ids))
    assert other.to("meta")(*(each.to("meta") for each in ids)).shape == network(*ids).shape


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"address": "item"}, ("item", "item")),
        ({"address": "user"}, ("user", "user")),
        ({"keys": "flat"}, None),
    ],
)
def test_axes_of_the_usage_map(options: dict[str, Any], labels: tuple[str, str] | None) -> None:
    memory = StudyMemorySettings(sub_keys=16, code_dim=8, **options)
    model = CTRModel(FEATURES, StudyModelSettings(hidden=(4,), memory=memory))
    for place, axis in enumerate(usage_axes(model)):
        if labels is None:
            assert axis.common is None
            assert axis.label == f"sub-key of axis {place}"
            continue
        assert axis.label == f"sub-key of the {labels[place]}'s code (axis {place})"
        key, name = axis.common
        code = model.memory.item_codes[-1] if labels[place] == "item" else model.memory.user_codes[-1]
        keys = model.memory.block.keys[0, place]
        assert key == int((keys @ code / keys.norm(dim=1)).argmax())
        assert name == f"any {labels[place]}"
